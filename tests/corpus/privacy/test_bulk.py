"""Scanning a part gives what searching each text gives, turn by turn, and edits that stand where they should."""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus import privacy
from gptwright.corpus.edits import Edit, apply_edits, apply_to_messages
from gptwright.corpus.privacy import KINDS, Span, find_all
from gptwright.corpus.privacy.bulk import scan
from gptwright.corpus.privacy.planted import planted_set
from gptwright.corpus.privacy.policy import Policy

KEY = bytes(range(32))
PIECES = [
    "jo.doe@mail.example.org", "müller@firma.de", "git@", "@", "+49 30 901820", "(801) 422-4636", "Tel: 030 901820", "call", "12", "4",
    "192.168.10.44", "version", "2001:db8::7:1", "fe80::1", "::", "a[100::200]", "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432",
    "4111 1111 1111 1111", "4111111111111111", "536-90-4399", "SSN", "12345678Z", "BSN", "111222333", "AB 12 34 56 C", "680419-0608",
    "AKIAQYLPMN5HHHFPZAM2", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "-", "_", ".", "sk-ant-api03-R2D2abcdefgh9876QRSTuvwx",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----",
    "MIIEow", "postgres://app:s3cretPw1@db/x", "https://", "password = ", "PASSWORD:", '"hunter22!"', "api_key=", "Zq8vK2mN4pR7sT1wX3yB",
    "12 Oak Hill Street", "Hauptstraße 5", "Karl-Marx-Allee 7a", "3 bis, rue de la Paix", "Calle Mayor, 12", "C/ Alcalá 4", "Via Roma 27",
    "in 1998 Main Street", "42nd", "St.", "rue", "é", "–", "\u00a0", "語", "🙂", "“", "٣٤٥٦٧٨٩٠", " ", " ", " ", ", ", "\n", "=", ":", "/", "(",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


# What tells a run of digits that may be a phone or an identity number from one that cannot: groups, openings, words, borders.
DIGITS = [
    "801", "422", "4636", "0301", "0", "00", "1", "30", "9018", "8014224636", "18014224636", "756", "1234", "+", "(", ")", "+(", "-", ".", "/",
    " ", "  ", "\n", "–", "\u00a0", "%", ",", ":", "#", "x", "A", "K", "TÉL ", "móvil ", "dıal ", "ſms ", "ring ", "Anruf ", "phone", "ID ", "CPF ",
]  # fmt: skip
numbers = st.lists(st.sampled_from(DIGITS), max_size=16).map("".join)


def large(texts: list[str | None]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def spans(edits: pa.Table, row: int) -> list[Span]:
    return [Span(e["start"], e["end"], e["kind"]) for e in edits.to_pylist() if e["doc_row"] == row]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(texts, numbers, st.text(max_size=30), st.none()), max_size=5))
def test_scan_when_any_texts_are_given_then_it_finds_what_searching_the_whole_finds(
    given_texts: list[str | None],
) -> None:
    counts, edits = scan(large(given_texts))
    for row, text in enumerate(given_texts):
        expected = find_all(text) if text is not None else []
        assert spans(edits, row) == expected
        for kind in KINDS:
            assert counts[f"pii_{kind.lower()}"][row].as_py() == sum(s.kind == kind for s in expected)


def test_scan_when_planted_documents_are_given_then_it_finds_what_searching_the_whole_finds() -> None:
    documents = [d.text for d in planted_set(120, seed=5)]
    _, edits = scan(large(documents))
    found = [[] for _ in documents]
    for e in edits.to_pylist():
        found[e["doc_row"]].append(Span(e["start"], e["end"], e["kind"]))
    assert found == [find_all(text) for text in documents]
    assert sum(map(len, found)) > 150


def test_scan_when_the_array_is_a_slice_then_rows_and_places_are_those_of_the_slice() -> None:
    whole = large(["ada@a.org", "é text", "語 write to bob@b.org now", None])
    counts, edits = scan(whole.slice(1))
    assert edits.to_pylist() == [{"doc_row": 1, "start": 11, "end": 20, "kind": "EMAIL", "replacement": "[EMAIL]"}]
    assert counts["pii_email"].to_pylist() == [0, 1, 0]


def test_scan_when_more_is_found_than_the_table_first_holds_then_nothing_is_lost() -> None:
    many = " ".join(f"user{n}@example.org" for n in range(20_000))
    counts, edits = scan(large(["x", many, "y@z.org"]))
    assert counts["pii_email"].to_pylist() == [0, 20_000, 1]
    assert edits.num_rows == 20_001


def turn(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_scan_when_a_conversation_is_given_then_nothing_spans_two_turns(contents: list[str]) -> None:
    messages = [turn(content) for content in contents]
    _, edits = scan(large(["\n".join(contents)]), large([json.dumps(messages)]))
    made = [Edit(e["start"], e["end"], e["kind"], e["replacement"]) for e in edits.to_pylist()]
    expected = [apply_edits(c, [Edit(s.start, s.end, s.kind, f"[{s.kind}]") for s in find_all(c)]) for c in contents]
    assert [m["content"] for m in apply_to_messages(messages, made)] == expected


def test_scan_when_a_key_is_cut_by_a_turn_then_each_turn_is_masked_on_its_own() -> None:
    contents = ["-----BEGIN PRIVATE KEY-----\nMIIEvQ", "-----END PRIVATE KEY-----"]
    _, edits = scan(large(["\n".join(contents)]), large([json.dumps([turn(c) for c in contents])]))
    assert [(e["start"], e["end"]) for e in edits.to_pylist()] == [(0, len(contents[0]))]


TEXT = "write ada@a.org, key AKIAQYLPMN5HHHFPZAM2"


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("mask", "write [EMAIL], key [SECRET]"),
        ("keep", "write ada@a.org, key [SECRET]"),
        ({"default": "keep", "secret": "keep"}, TEXT),
        ({"email": "keep"}, "write ada@a.org, key [SECRET]"),
        ({"default": "keep", "EMAIL": "mask", "SECRET": "keep"}, "write [EMAIL], key AKIAQYLPMN5HHHFPZAM2"),
        ("drop", TEXT),
    ],
)
def test_scan_when_a_policy_is_given_then_it_decides_what_is_replaced(policy: str | dict[str, str], left: str) -> None:
    counts, edits = scan(large([TEXT]), policy=policy)
    made = [Edit(e["start"], e["end"], e["kind"], e["replacement"]) for e in edits.to_pylist()]
    assert apply_edits(TEXT, made) == left
    assert (counts["pii_email"][0].as_py(), counts["pii_secret"][0].as_py()) == (1, 1)  # counted under every policy


def test_drops_when_a_kind_is_to_be_dropped_then_only_documents_that_hold_it_fall() -> None:
    counts, _ = scan(large(["ada@a.org", "AKIAQYLPMN5HHHFPZAM2", "none"]))
    assert Policy.of("drop").drops(counts).tolist() == [True, True, False]
    assert Policy.of({"SECRET": "drop"}).drops(counts).tolist() == [False, True, False]
    assert not np.any(Policy.of("mask").drops(counts))


@pytest.mark.parametrize("policy", ["hide", {"EMAILS": "mask"}, {"default": "shred"}])
def test_policy_when_it_names_something_unknown_then_the_error_lists_what_there_is(
    policy: str | dict[str, str],
) -> None:
    with pytest.raises(UserError, match="Use one of"):
        Policy.of(policy)


def test_scan_when_pseudonyms_are_wanted_without_a_key_then_it_says_where_to_get_one() -> None:
    with pytest.raises(UserError, match="need a key"):
        scan(large(["x"]), policy="pseudonymize")


def test_scan_when_a_finder_of_names_is_given_then_its_spans_count_and_rules_win_where_both_claim() -> None:
    def names(text: str) -> list[Span]:
        return [Span(0, 3, "PERSON")] if text.startswith("Ada") else [Span(0, 9, "PERSON")]

    counts, edits = scan(
        large(["Ada was here", "ada@a.org", "zzz"]), policy={"PERSON": "mask", "EMAIL": "mask"}, names=names
    )
    assert [e["kind"] for e in edits.to_pylist()] == ["PERSON", "EMAIL", "PERSON"]
    assert counts["pii_person"].to_pylist() == [1, 0, 1]


def test_code_when_a_module_decides_what_is_found_then_it_is_named() -> None:
    folder = Path(privacy.__file__).parent
    named = {module.rpartition(".")[2] for module in privacy.CODE}
    assert named == {p.stem for p in folder.glob("*.py")} - {
        "__init__", "measure", "planted", "planted_ids", "planted_numbers", "planted_phrases"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    ["1", "1 ", "1-", "12 34 ", "a@", "a.", "@", "DE12", "(", "A ", "AB12 ", ":", "a:", "2001:", "://a:b", "://u:pw1@", "eyJ", "eyJ.eyJ", "sk-",
     "password=", "password = \"", "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN ", "1 Ab ", "1 A Street ", "Straße 1 ", "Calle A 1 ", "1 rue ",
     "via 1", "Av ", "语", "٣", "\u00a0", "secret:secret", "call 030 901820 ", "801-422-4636 ", "SSN 536-90-4399 ", "0 1 2 3 4 5 6 7 8 9 "],
)  # fmt: skip
def test_scan_when_a_megabyte_is_hostile_then_it_takes_no_more_than_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = large([unit * (size // len(unit.encode()))])
        begin = time.process_time()
        scan(text)
        return time.process_time() - begin

    seconds(1000)
    assert seconds(250_000) < 2.5  # a quarter of the text: what is linear takes a quarter of the time
