"""Views: selectors, samples, licences, and the reasons told to a person."""

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus.edits import Edit, apply_edits, apply_to_messages
from gptwright.corpus.tidy import tidy_edits
from gptwright.corpus.view import documents, find_document, find_documents, licenses, sample, why
from gptwright.corpus.why import rule_named

if TYPE_CHECKING:
    from conftest import Project


def test_why_when_document_is_a_copy_then_the_kept_one_is_named(project: "Project") -> None:
    project.write("notes/a.txt", project.prose(1))
    project.write("notes/b.txt", project.prose(1))
    project.build(license="CC0-1.0", attribution="Ada")
    told = "\n".join(why(project.out, project.ledger, "notes/b.txt"))
    assert "verdict: dropped" in told
    assert "copy.exact: the same text as own/notes/a.txt" in told
    assert "licence: CC0-1.0 (user-asserted, confidence 1.0), Ada" in told
    assert "kept, for training" in "\n".join(why(project.out, project.ledger, "path:own/notes/a*"))


def test_why_when_rule_dropped_it_then_value_and_threshold_are_told(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    project.write("b.txt", "Mail a@b.org")
    project.build()
    told = "\n".join(why(project.out, project.ledger, "b.txt"))
    assert "text.too_short: measured 12, dropped when < 20" in told
    assert "personal data found: 1 EMAIL (policy: mask)" in told


def test_why_when_file_gave_no_document_then_its_outcome_is_told(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    project.write("b.pdf", b"%PDF-1.4")
    project.build()
    assert why(project.out, project.ledger, "b.pdf") == [
        "own/b.pdf: unreadable, a damaged PDF, or one that was cut off"
    ]


def test_why_when_nothing_has_the_name_then_selectors_are_explained(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    project.build()
    with pytest.raises(UserError, match=r"no document 'zzz.txt'.*Name an id, a path"):
        why(project.out, project.ledger, "zzz.txt")


def test_find_when_selector_is_of_any_kind_then_documents_are_found(project: "Project") -> None:
    for i in range(4):
        project.write(f"{i}.txt", project.prose(i))
    project.build(license="MIT")
    uid = next(documents(project.out)).uid
    assert find_document(project.out, uid).document.uid == uid
    assert find_document(project.out, f"id:{uid[:10]}").document.uid == uid
    assert [f.document.locator for f in find_documents(project.out, "path:[12].txt")] == ["1.txt", "2.txt"]
    assert len(find_documents(project.out, "source:own")) == len(find_documents(project.out, "license:MIT")) == 4


def test_sample_when_seed_is_the_same_then_so_are_the_documents(project: "Project") -> None:
    for i in range(30):
        project.write(f"{i}.txt", project.prose(i))
    project.write("short.txt", "short")
    project.build()
    names = [[f.document.locator for f in sample(project.out, 5, seed=seed)] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert [f.document.locator for f in sample(project.out, 5, rule="text.too_short")] == ["short.txt"]


def test_licenses_when_read_then_bytes_and_share_are_given(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    result = project.build(license="MIT")
    (row,) = licenses(project.out)
    assert (row["license"], row["sources"], row["bytes"], row["share"]) == ("MIT", ["own"], result.bytes, 1.0)


turns = st.lists(st.text(alphabet="ab @.i'\n!?", max_size=12), min_size=1, max_size=5)


@given(turns, st.data())
def test_edits_when_made_in_messages_then_joined_text_is_the_edited_text(
    contents: list[str], data: st.DataObject
) -> None:
    messages = [{"role": "user", "content": content} for content in contents]
    edits: list[Edit] = []
    at = 0
    for content in contents:
        if data.draw(st.booleans()):
            start = data.draw(st.integers(0, len(content)))
            end = data.draw(st.integers(start, len(content)))
            edits.append(Edit(at + start, at + end, "X", data.draw(st.sampled_from(["", "[X]"]))))
        at += len(content) + 1
    edited = apply_to_messages(messages, edits)
    assert "\n".join(m["content"] for m in edited) == apply_edits("\n".join(contents), edits)


@pytest.mark.parametrize(
    ("turn", "tidied"),
    [
        ("hi\nhow are you doing", "Hi. How are you doing?"),
        ("im good!!!! what about you", "I'm good! What about you."),
        ("i think i dont know, haha", "I think I don't know, haha."),
        ("hahahahaha thats great", "Haha that's great."),
        ("Already fine. It stays.", "Already fine. It stays."),
        ("what is it\n?\nok", "What is it? Ok."),
        ("whats your major?\n??", "What's your major?"),
        ("a smile :)", "A smile :)"),
        ("see i.e. this", "See i.e. this."),
        ("https://example.org/i", "https://example.org/i."),
    ],
)
def test_tidy_when_turn_is_chatty_then_it_reads_as_sentences(turn: str, tidied: str) -> None:
    assert apply_edits(turn, tidy_edits(turn)) == tidied


@given(st.text(alphabet="abcih dont'.!?\n@1", max_size=60))
def test_tidy_when_any_turn_is_given_then_edits_are_apart_and_a_second_time_changes_little(turn: str) -> None:
    mask = [Edit(1, 3, "EMAIL", "[EMAIL]")] if len(turn) > 3 else []
    edits = sorted([*tidy_edits(turn, mask), *mask], key=lambda e: (e.start, e.end))
    assert all(a.end <= b.start for a, b in itertools.pairwise(edits))
    assert all(0 <= e.start <= e.end <= len(turn) for e in edits)
    # Marks at the very beginning end no sentence, so the line after them stays one.
    joined = "\n" not in apply_edits(turn, tidy_edits(turn)).strip("\n")
    assert joined or "\n\n" in turn or turn.lstrip("\n")[:1] in tuple("?!.")


def test_tidy_when_asked_for_then_the_stored_text_stays_as_it_came(project: "Project") -> None:
    messages = [{"role": "user", "content": "hi how are you"}, {"role": "assistant", "content": "im fine, ask a@b.org"}]
    project.write("a.jsonl", json.dumps({"messages": messages}))
    project.build(tidy=True)
    found = find_document(project.out, "source:own")
    assert json.loads(found.row["messages"]) == messages
    assert found.document.messages is not None
    assert found.document.messages[1]["content"] == "I'm fine, ask [EMAIL]."


def test_rule_named_when_the_implementation_is_left_out_then_the_one_of_the_recipe_is_meant(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    project.write("b.txt", "Only a few words of it.")
    project.write("c.txt", project.prose(3, 200))
    (project.root / "mine.toml").write_text('rules = ["gopher_quality.min_words@datatrove"]')
    project.build(recipe="mine.toml")
    assert rule_named(project.out, "gopher_quality.min_words", "x") == "gopher_quality.min_words@datatrove"
    assert rule_named(project.out, "copy.near", "x") == "copy.near"
    with pytest.raises(UserError, match=r"--dropped: unknown rule 'copy.nera'. Did you mean 'copy.near'"):
        rule_named(project.out, "copy.nera", "--dropped")


def test_documents_when_a_bit_changed_anywhere_then_the_part_is_named_or_nothing_is_different(
    project: "Project",
) -> None:
    for i in range(3):
        project.write(f"{i}.txt", project.prose(i))
    project.build()
    whole = list(documents(project.out))
    path = project.out / "docs" / "part-00000.parquet"
    raw, refused = path.read_bytes(), 0
    for at in range(0, len(raw), 23):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        try:
            assert list(documents(project.out)) == whole, at
        except UserError as error:
            refused += "part-00000 is damaged" in str(error)
    assert refused > 20
