"""Personal data that has a shape is found; what only looks like it is not."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.edits import Edit, apply_edits
from gptwright.corpus.privacy import KINDS, find_pii, mask_pii


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


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("from 2a02:8109:9a80::17 at night", "from [IP] at night"),
        ("gw fe80:0:0:0:200:f8ff:fe21:67cf.", "gw [IP]."),
        ("müller@firma-nord.de", "[EMAIL]"),
        ("Cards 3782-822463-10005 and 12 4111 1111 1111 1111", "Cards [CARD] and 12 [CARD]"),
        ("SSN 536-90-4399", "SSN [NATIONAL_ID]"),
        ("my ITIN is 912-70-1234", "my ITIN is [NATIONAL_ID]"),
        ("NI number AB 12 34 56 C", "NI number [NATIONAL_ID]"),
        ("NHS number: 943 476 5919", "NHS number: [NATIONAL_ID]"),
        ("Steuer-ID 36 574 261 809", "Steuer-ID [NATIONAL_ID]"),
        ("NIR 2 95 10 99 126 111 93", "NIR [NATIONAL_ID]"),
        ("DNI 54362315K", "DNI [NATIONAL_ID]"),
        ("NIE X-2482300-W", "NIE [NATIONAL_ID]"),
        ("C.F. RCCMNL83S18D969H", "C.F. [NATIONAL_ID]"),
        ("BSN 1112.22.333", "BSN [NATIONAL_ID]"),
        ("rijksregisternummer 85.07.30-033.28", "rijksregisternummer [NATIONAL_ID]"),
        ("PESEL 44051401359", "PESEL [NATIONAL_ID]"),
        ("CPF 390.533.447-05", "CPF [NATIONAL_ID]"),
        ("Aadhaar 2341 2341 2346", "Aadhaar [NATIONAL_ID]"),
        ("hetu 131052-308T", "hetu [NATIONAL_ID]"),
        ("880320-0016", "[NATIONAL_ID]"),
        ("AHV 756.9217.0769.85", "AHV [NATIONAL_ID]"),
        ("export K=AKIAQYLPMN5HHHFPZAM2", "export K=[SECRET]"),
        ("token ghp_16C7e42F292c6912E7710c838347Ae178B4a!", "token [SECRET]!"),
        ('password = "hunter2!x"', 'password = "[SECRET]"'),
        ("DB_PASSWORD=Tr0ub4dor3", "DB_PASSWORD=[SECRET]"),
        ("api_key: 'Zq8vK2mN4pR7sT1wX3yB'", "api_key: '[SECRET]'"),
        ("postgres://app:s3cretPw1@db/x", "postgres://app:[SECRET]@db/x"),
        ("a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----\nb", "a\n[SECRET]\nb"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n(cut)", "[SECRET](cut)"),
        ("at 12 Oak Hill Street, Flat 4.", "at [ADDRESS]."),
        ("221B Baker Street, London NW1 6XE", "[ADDRESS]"),
        ("1600 Pennsylvania Avenue NW, Washington, DC 20500", "[ADDRESS]"),
        ("Hauptstraße 5a, 10115 Berlin", "[ADDRESS]"),
        ("in der Karl-Marx-Allee 107", "in der [ADDRESS]"),
        ("au 3 bis, rue de la Paix, 75002 Paris", "au [ADDRESS]"),
        ("en Calle Mayor, 12, 28013 Madrid", "en [ADDRESS]"),
        ("en Calle Mayor 12, 3.º B, 28013 Madrid", "en [ADDRESS]"),
        ("in Via Roma, 27", "in [ADDRESS]"),
        ("Keizersgracht 123", "[ADDRESS]"),
    ],
)
def test_pii_when_every_kind_is_asked_for_then_it_is_masked_by_kind(text: str, masked: str) -> None:
    assert mask_pii(text, KINDS)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "part number 536-90-4399",
        "SSN 666-12-3456",
        "DNI 54362315A",
        "111222333",
        "std::vector<int> and a[100::200]",
        "at 12:30:45:00",
        "AKIAIOSFODNN7EXAMPLE",
        'api_key = "YOUR_API_KEY_GOES_HERE_1"',
        "password = os.environ['PW']",
        "password: str = get_password()",
        "postgres://user:password@localhost/db",
        "In 2008 Wall Street lost its nerve",
        "Copyright 1991-1998, Thomas G. Lane",
        "We flew via Paris 3 days later",
        "they won 12 of 20 in the second place",
        "logo@2x.png and git@github.com:a/b.git and root@host.local:~$ ls",
        "Boston, MA 02110-1301, USA",
        "DFARS 252.227-7013",
        "Git 1.7.12.2",
        "10.1000/182 and 978-3-16-148410-0",
        "eyJ0aGlzIjoibm90IGEgand0In0.eyJhIjoxfQ.abcdefghijkl",
    ],
)
def test_pii_when_every_kind_is_asked_for_then_what_only_looks_like_it_stays(text: str) -> None:
    assert find_pii(text, KINDS) == []


def test_pii_when_asked_for_one_kind_then_only_that_is_found() -> None:
    text = 'ada@a.org password = "hunter2!x"'
    assert [s.kind for s in find_pii(text, ["SECRET"])] == ["SECRET"]
    assert [s.kind for s in find_pii(text)] == ["EMAIL"]  # a streamed text is not searched for what needs a line


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
