"""Lists of words: their format, and how much of a text they are."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus.decontaminate.words import as_text
from gptwright.corpus.quality import flagged


def lists(folder: Path, files: dict[str, str]) -> flagged.WordLists:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return flagged.load((str(folder),))


def test_ratio_when_words_and_phrases_are_listed_then_they_match_whole_and_in_any_case(tmp_path: Path) -> None:
    words = lists(tmp_path / "a", {"en.txt": "# comment\ngrok\nvile troll  # a phrase\na55\n\n!!\n"})
    texts = ["A GROK, grok!", "grokking is fine", "the vile... Troll said so", "vile", "a55 a", "", "one two"]
    got = words.ratio(as_text(texts))
    np.testing.assert_allclose(got, [2 / 3, 0, 2 / 5, 0, 1 / 2, 0, 0], rtol=1e-6)
    assert words.ignored == 1


def test_ratio_when_documents_have_languages_then_only_their_lists_count(tmp_path: Path) -> None:
    words = lists(
        tmp_path / "a", {"en": "grok", "de.txt": "fies", "our-own.txt": "zorp", "README.md": "one", "LICENSE": "two"}
    )
    assert words.languages == ("", "de", "en")
    texts = as_text(["grok fies zorp one two"] * 5)
    got = words.ratio(texts, ["en", "de-AT", None, "und", "fr"])
    np.testing.assert_allclose(got, [0.4, 0.4, 0.6, 0.6, 0.2], rtol=1e-6)
    alone = lists(tmp_path / "b", {"en": "grok"})
    assert np.isnan(alone.ratio(as_text(["grok"]), ["fr"])).all()


def test_ratio_when_a_script_has_no_spaces_then_phrases_are_found_inside(tmp_path: Path) -> None:
    words = lists(tmp_path / "a", {"zh": "坏话"})
    np.testing.assert_allclose(words.ratio(as_text(["他说坏话了", "他坏了话"])), [2 / 5, 0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    st.lists(st.text(alphabet="ab ", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=5),
    st.text(alphabet="ab ,", max_size=40),
)
def test_ratio_when_phrases_overlap_then_each_word_counts_once(
    tmp_path_factory: pytest.TempPathFactory, phrases: list[str], text: str
) -> None:
    words = lists(tmp_path_factory.mktemp("lists"), {"xx-list": "\n".join(phrases)})
    tokens = re.findall(r"\w+", text)
    covered = set()
    for phrase in (p.split() for p in phrases):
        for i in range(len(tokens)):
            if tokens[i : i + len(phrase)] == phrase:
                covered |= set(range(i, i + len(phrase)))
    assert words.ratio(as_text([text]))[0] == pytest.approx(len(covered) / max(len(tokens), 1))


def test_load_when_a_list_is_missing_or_broken_then_the_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such word list"):
        flagged.load((str(tmp_path / "none.txt"),))
    (tmp_path / "en.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="not UTF-8"):
        flagged.load((str(tmp_path / "en.txt"),))
    (tmp_path / "de.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="no word"):
        flagged.load((str(tmp_path / "de.txt"),))
