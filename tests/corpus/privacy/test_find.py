"""Personal data that has a shape is found; what only looks like it is not."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.edits import Edit, apply_edits
from gptwright.corpus.privacy import find_pii, mask_pii


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jo.doe+x@mail.example.co.uk.", "write to [EMAIL]."),
        ("<chitchat@byu.edu>, me@a.org", "<[EMAIL]>, [EMAIL]"),
        ("call (801) 422-4636 now", "call [PHONE] now"),
        ("801-422-4636", "[PHONE]"),
        ("text me 8014224636", "text me [PHONE]"),
        ("ring +44 20 7946 0958!", "ring [PHONE]!"),
        ("+1 801 422 4636 0", "[PHONE] 0"),
        ("room 12 801-422-4636\n17", "room 12 [PHONE]\n17"),
        ("0049 30 901820", "[PHONE]"),
        ("Telefon: 030 901820", "Telefon: [PHONE]"),
        ("my number is 422-4636", "my number is [PHONE]"),
        ("host 192.168.10.44 is down", "host [IP] is down"),
        ("pay DE89 3704 0044 0532 0130 00 today", "pay [IBAN] today"),
        ("GB82WEST12345698765432", "[IBAN]"),
        ("card 4111 1111 1111 1111 exp", "card [CARD] exp"),
    ],
)
def test_pii_when_present_then_it_is_masked_by_kind(text: str, masked: str) -> None:
    assert mask_pii(text)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "0011010010110100101",
        "3.141592653589793238462654338 thats all I got",
        "998877778899 is an example",
        "I have 0.0000000013% memorized",
        "i had like 403902930493 words",
        "on 2018-05-02 and 12/24/2018, 1914-1918",
        "2018-05-02T19:38:15Z",
        "version 1.2.3.4 of it",
        "ISBN 0-306-40615-2",
        "the score was 21-17, 25-23",
        "https://www.theverge.com/2017/10/30/16569402/ai",
        "http://www.imdb.com/title/tt2872732/",
        "me@home and you@work",
        "1,234,567,890 people",
        "card 4111 1111 1111 1112",
        "DE89 3704 0044 0532 0130 01",
        "999.999.999.999",
        "timestamp 1525289895",
        "call me when you have 100 200 300",
    ],
)
def test_pii_when_absent_then_nothing_is_found(text: str) -> None:
    assert find_pii(text) == []


@given(st.text(alphabet=st.sampled_from("0123456789+-. ()@ab.:/\nDE"), max_size=80))
def test_pii_when_any_text_is_given_then_spans_are_ordered_apart_and_masking_agrees(text: str) -> None:
    spans = find_pii(text)
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    masked, counts = mask_pii(text)
    assert masked == apply_edits(text, [Edit(s.start, s.end, s.kind, f"[{s.kind}]") for s in spans])
    assert sum(counts.values()) == len(spans)


@given(st.text(max_size=60), st.sampled_from(["ada@lovelace.org", "+1 801 422 4636"]), st.text(max_size=60))
def test_pii_when_planted_between_spaces_then_it_is_gone_after_masking(before: str, secret: str, after: str) -> None:
    assert secret not in mask_pii(f"{before} \n{secret}\n {after}")[0]


@pytest.mark.parametrize(
    "text", ["1" * 200_000, "1-" * 100_000, "a@" * 100_000, "a." * 100_000 + "@", "DE12" * 50_000, "(" * 200_000]
)
def test_pii_when_text_is_hostile_then_it_stays_fast(text: str) -> None:
    start = time.process_time()  # not the clock on the wall: others may use the machine
    find_pii(text)
    assert time.process_time() - start < 10  # the square of this length would take minutes
