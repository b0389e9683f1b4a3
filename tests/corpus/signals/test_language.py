"""Language: py3langid's own answers, faster, and the classes for too little and for no language."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.corpus.signals import measure
from gptwright.corpus.signals.language import HEAD_BYTES, MIDDLE_BYTES, SURE, model

SENTENCES = {
    "en": "The committee will meet again on Thursday to talk about the new library and what it should cost.",
    "de": "Der Ausschuss trifft sich am Donnerstag wieder und spricht über die neue Bücherei und ihre Kosten.",
    "fr": "Le comité se réunira de nouveau jeudi pour parler de la nouvelle bibliothèque et de son prix.",
    "es": "El comité se reunirá de nuevo el jueves para hablar de la nueva biblioteca y de lo que debe costar.",
    "ru": "Комитет снова соберётся в четверг, чтобы поговорить о новой библиотеке и её стоимости.",
    "ja": "委員会は木曜日にまた集まり、新しい図書館とその費用について話し合います。",
    "ar": "ستجتمع اللجنة مرة أخرى يوم الخميس للحديث عن المكتبة الجديدة وتكلفتها.",
}
CODE = (
    "def f(x, y):\n    return {k: v[0] for k, v in zip(x, y)}\n\nif __name__ == '__main__':\n    print(f([1], [2]))\n"
)


def lang(text: str, declared: str | None = None) -> tuple[str, float]:
    table = measure(pa.array([text], pa.large_string()), pa.array([declared], pa.string()) if declared else None)
    return table["lang"][0].as_py(), table["lang_score"][0].as_py()


@pytest.fixture(scope="module")
def peer():  # type: ignore[no-untyped-def]
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@pytest.mark.parametrize("code", SENTENCES)
def test_lang_when_a_sentence_then_its_language(code: str) -> None:
    assert lang(SENTENCES[code])[0] == code


@pytest.mark.parametrize("text", ["", "ok", "42", "a b c d"])
def test_lang_when_too_little_or_unsure_then_und(text: str) -> None:
    assert lang(text)[0] == "und"


@pytest.mark.parametrize(
    "text",
    [CODE, "12 34 56\n78 90 12\n" * 5, "| 1 | 2 |\n|---|---|\n| 3 | 4 |", '{"a": [1, 2, {"b": null}]}', "= * " * 9],
)
def test_lang_when_code_or_numbers_then_zxx(text: str) -> None:
    assert lang(text)[0] == "zxx"


def test_lang_when_declared_then_taken_only_where_the_text_does_not_tell() -> None:
    assert lang("ok", "de-AT")[0] == "de"
    assert lang(SENTENCES["en"], "de")[0] == "en"
    assert lang("ok", "not a language")[0] == "und"


def assert_as_peer(peer, text: str) -> None:  # type: ignore[no-untyped-def]
    wanted, probability = peer.classify(text)
    found, score = lang(text)
    assert found in (wanted, "und", "zxx"), wanted
    assert np.isclose(score, probability, atol=2e-4) or not text.strip()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([w for s in SENTENCES.values() for w in s.split()]), max_size=40))
def test_lang_score_when_words_are_mixed_then_as_py3langid(peer, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    assert_as_peer(peer, unicodedata.normalize("NFC", " ".join(words)))
    assert_as_peer(peer, unicodedata.normalize("NFC", " ".join(words).upper()))


def windows(raw: bytes, head: int, middle: int) -> str:
    """The first bytes and some in the middle, whole characters."""
    begin = (len(raw) - middle) // 2

    def whole(at: int) -> int:
        while raw[at] & 0xC0 == 0x80:
            at += 1
        return at

    begin = whole(begin)
    return (raw[: whole(head)] + raw[begin : whole(begin + middle)]).decode()


@pytest.mark.parametrize(("first", "second"), [("ru", "de"), ("en", "en"), ("de", "fr"), ("fr", "fr")])
def test_lang_score_when_a_text_is_long_then_of_its_head_and_middle(peer, first: str, second: str) -> None:  # type: ignore[no-untyped-def]
    text = (SENTENCES[first] + " ") * 40 + (SENTENCES[second] + " ") * 100
    wanted, probability = peer.classify(windows(text.encode(), HEAD_BYTES // 2, MIDDLE_BYTES // 2))
    if probability < SURE:
        wanted, probability = peer.classify(windows(text.encode(), HEAD_BYTES, MIDDLE_BYTES))
    assert lang(text) == (wanted, pytest.approx(probability, abs=2e-4))


def test_model_when_loaded_then_every_state_has_a_row() -> None:
    tables, names = model()
    assert len(names) == len(tables.prior) == tables.weight.shape[1]
    assert int(tables.rows.max()) + 256 <= len(tables.moves)
