"""Replacements: the same within a document, other in another, nobody's, and in the form of what they stand for."""

import ipaddress
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus.edits import Edit, apply_edits
from gptwright.corpus.privacy import find_all
from gptwright.corpus.privacy.bulk import scan
from gptwright.corpus.privacy.ids import is_national_id
from gptwright.corpus.privacy.money import is_card
from gptwright.corpus.privacy.planted import planted_set
from gptwright.corpus.privacy.pseudonyms import Pseudonyms, load_or_make_key
from gptwright.corpus.privacy.spans import Span

KEY = bytes(range(32))


def replace(text: str, key: bytes = KEY, scope: bytes | None = None) -> str:
    scopes = pa.array([scope], pa.binary()) if scope else None
    _, edits = scan(pa.array([text], pa.large_string()), policy="pseudonymize", key=key, scope=scopes)
    return apply_edits(text, [Edit(e["start"], e["end"], e["kind"], e["replacement"]) for e in edits.to_pylist()])


def one(kind: str, original: str, key: bytes = KEY, scope: bytes = b"doc") -> str:
    return Pseudonyms(key, scope).replacement(Span(0, len(original), kind), original)


def test_pseudonyms_when_a_thing_stands_twice_then_it_gets_one_replacement() -> None:
    made = replace("ada@a.org met bob@b.org; ADA@A.ORG wrote. Call +1 801 422 4636 or (801) 422-4636.")
    mails = re.findall(r"person-[0-9a-f]{4}@example\.(?:com|org|net)", made)
    assert len(mails) == 3
    assert mails[0] == mails[2] != mails[1]
    numbers = re.findall(r"[+(]1?[\d() -]+\d", made)
    assert "".join(filter(str.isdigit, numbers[0]))[-10:] == "".join(filter(str.isdigit, numbers[1]))
    assert "422" not in made.partition("Call")[2]


def test_pseudonyms_when_documents_or_keys_differ_then_replacements_do_not_join_them() -> None:
    one_document = replace("a ada@a.org")
    assert one_document == replace("a ada@a.org")  # the same on every machine and in every run
    assert one_document[2:] != replace("b ada@a.org")[2:]
    assert one_document != replace("a ada@a.org", key=bytes(32))
    assert replace("a ada@a.org", scope=b"x")[2:] == replace("b ada@a.org", scope=b"x")[2:]  # the parts of one document


@pytest.mark.parametrize(
    ("original", "shape"),
    [
        ("(801) 422-4636", r"\(\d{3}\) 555-01\d\d"),
        ("+1 801 422 4636", r"\+1 \d{3} 555 01\d\d"),
        ("8014224636", r"\d{3}55501\d\d"),
        ("422-4636", r"555-01\d\d"),
        ("+44 20 7123 4567", r"\+44 20 7946 0\d{3}"),
        ("07725 123456", r"07700 900\d{3}"),
        ("+49 30 12345678", r"\+49 30 23125\d{3}"),
        ("01 42 68 53 00", r"01 99 00 \d\d \d\d"),
        ("06 12 34 56 78", r"06 39 98 \d\d \d\d"),
        ("+61 2 9374 4000", r"\+61 2 5550 \d{4}"),
        ("+81 3 1234 5678", r"\+1 \d{3} 555 01\d\d"),
    ],
)
def test_phone_when_replaced_then_it_is_a_number_set_aside_for_fiction(original: str, shape: str) -> None:
    assert re.fullmatch(shape, one("PHONE", original)), one("PHONE", original)


@given(st.integers(0, 2**32))
def test_addresses_of_machines_when_replaced_then_they_are_for_documentation(n: int) -> None:
    scope = n.to_bytes(8, "big")
    nets = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
    assert any(ipaddress.ip_address(one("IP", "81.2.69.142", scope=scope)) in net for net in nets)
    assert ipaddress.ip_address(one("IP", "2a02:1::5", scope=scope)) in ipaddress.ip_network("2001:db8::/32")


@given(st.integers(0, 2**32))
def test_numbers_with_a_checksum_when_replaced_then_the_checksum_is_wrong_and_the_layout_kept(n: int) -> None:
    scope = n.to_bytes(8, "big")
    assert re.fullmatch(r"DE00 \d{4} \d{4} \d{4} \d{4} \d\d", one("IBAN", "DE89 3704 0044 0532 0130 00", scope=scope))
    card = one("CARD", "4111-1111-1111-1111", scope=scope)
    assert re.fullmatch(r"0\d{3}-\d{4}-\d{4}-\d{4}", card)
    assert not is_card(card)
    for original in ("536-90-4399", "12345678Z", "RSSMRA85T10A562S", "AB 12 34 56 C"):
        made = one("NATIONAL_ID", original, scope=scope)
        assert [c.isalnum() for c in made] == [c.isalnum() for c in original]
        assert not is_national_id(made)


def test_pseudonyms_when_a_document_holds_very_many_then_no_two_things_share_one() -> None:
    names = Pseudonyms(KEY, b"doc")
    mails = [f"u{n}@a.org" for n in range(3000)]
    made = [names.replacement(Span(0, len(m), "EMAIL"), m) for m in mails]
    assert len(set(made)) == len(mails)
    assert made == [names.replacement(Span(0, len(m), "EMAIL"), m) for m in mails]
    phones = [f"801-{400 + n // 100}-{1000 + n}" for n in range(2000)]  # more than there are numbers for fiction
    given_phones = [names.replacement(Span(0, len(p), "PHONE"), p) for p in phones]
    taken = [p for p in given_phones if p != "[PHONE]"]
    assert len(set(taken)) == len(taken) > 500


def test_secrets_when_pseudonyms_are_wanted_then_they_are_masked_all_the_same() -> None:
    assert replace("AKIAQYLPMN5HHHFPZAM2") == "[SECRET]"


def test_planted_documents_when_pseudonymized_then_nothing_planted_that_was_found_is_left() -> None:
    for document in planted_set(60, seed=11):
        made = replace(document.text)
        for span in find_all(document.text):
            assert document.text[span.start : span.end] not in made.split("\n") or span.kind == "ADDRESS"


def test_key_when_made_then_only_its_owner_reads_it_and_it_stays(tmp_path: Path) -> None:
    key = load_or_make_key(tmp_path / "state")
    file = tmp_path / "state" / "pseudonyms.key"
    assert len(key) == 32
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert load_or_make_key(tmp_path / "state") == key
    assert [p.name for p in file.parent.iterdir()] == ["pseudonyms.key"]
    assert load_or_make_key(tmp_path / "other") != key


def test_key_when_many_make_it_at_once_then_all_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: load_or_make_key(tmp_path), range(16)))) == 1


def test_key_when_the_file_is_damaged_then_it_says_so_and_makes_no_other(tmp_path: Path) -> None:
    (tmp_path / "pseudonyms.key").write_bytes(b"short")
    with pytest.raises(UserError, match="backup"):
        load_or_make_key(tmp_path)
    assert (tmp_path / "pseudonyms.key").read_bytes() == b"short"
