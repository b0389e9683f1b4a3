"""Lines that rule sets remove, as spans of characters; text without them is what the rules keep."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus.signals import measure, removed_spans

KEEP = "This line has words and ends well."


def without(text: str, rules: str) -> str:
    spans = removed_spans(pa.array([text], pa.large_string()), rules).to_pylist()
    for span in reversed(spans):
        text = text[: span["start"]] + text[span["end"] :]
    return text


def test_removed_spans_when_lines_break_rules_then_only_they_go() -> None:
    text = f"Home | About\n{KEEP}\nEnable JavaScript to see this.\nUse of cookies is what we say here.\nÜber allem {KEEP}\nmenu"
    assert without(text, "c4@reference") == f"{KEEP}\nÜber allem {KEEP}"
    assert without(text, "c4@fineweb") == f"Home | About\n{KEEP}\nÜber allem {KEEP}"
    assert without(f"{KEEP}\nSHOUTING LOUD\n12 likes\nalone\n\n{KEEP}\n12345", "refinedweb@dclm") == f"{KEEP}\n\n{KEEP}"


@pytest.mark.parametrize("text", ["", "\n", "menu", "menu\nmenu", f"{KEEP}\r\nmenu", f"menu\r\n{KEEP}"])
def test_removed_spans_when_little_is_left_then_no_stray_line_end_stays(text: str) -> None:
    assert without(text, "c4@reference").strip("\n") == (KEEP if KEEP in text else "")
    assert KEEP not in text or without(text, "c4@reference") == KEEP


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [KEEP, "menu", "", "A [12] cited line that ends well.", "it uses cookies and says so.", "three words here."]
        ),
        max_size=8,
    )
)
def test_removed_spans_when_applied_then_the_rest_is_kept_whole(parts: list[str]) -> None:
    text = "\n".join(parts)
    kept = without(text, "c4@datatrove")
    lines = measure(pa.array([text, kept], pa.large_string()))["c4_lines@datatrove"].to_pylist()
    assert lines[0] == lines[1] == len([line for line in kept.split("\n") if line])
    assert removed_spans(pa.array([kept], pa.large_string()), "c4@datatrove").num_rows == 0 or not kept.strip("\n")


def test_removed_spans_when_many_documents_then_rows_are_theirs() -> None:
    spans = removed_spans(
        pa.chunked_array([[KEEP, "menu"], [None, f"menu\n{KEEP}"]], pa.large_string()), "c4@reference"
    ).to_pylist()
    assert spans == [{"doc_row": 1, "start": 0, "end": 4}, {"doc_row": 3, "start": 0, "end": 5}]


def test_removed_spans_when_the_rules_are_unknown_then_the_error_names_those_there_are() -> None:
    with pytest.raises(UserError, match="removes no lines"):
        removed_spans(pa.array(["a"]), "gopher_quality@datatrove")
