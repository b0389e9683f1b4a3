"""Classifiers: what they see, how well they learn what is learnable and nothing else, and that their numbers can be trusted."""

import itertools
import json
import pydoc_data.topics
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus import quality
from gptwright.corpus.decontaminate import words as w
from gptwright.corpus.quality import features, linear, measure
from gptwright.corpus.quality.train import LEAST


def prose(n: int) -> list[str]:
    """Paragraphs of the language reference that Python ships."""
    found = [
        " ".join(p.split())
        for text in pydoc_data.topics.topics.values()
        for p in text.split("\n\n")
        if len(p.split()) > 25
    ]
    return random.Random(1).sample(sorted(set(found)), n)


def chat(seed: int) -> str:
    rng = random.Random(seed)
    said = ["lol", "ok", "u there", "brb", "haha", "no way", "see ya", "what", "idk", "omg", "yes!!", "sup"]
    return "\n".join(rng.choice(said) + rng.choice(["", "...", " :)", "!"]) for _ in range(rng.randint(4, 20)))


def shuffled(text: str, seed: int) -> str:
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def bag_of(text: str, chars: int = 0) -> list[int]:
    return linear.bag([text], chars=chars, buckets=1 << 18)[0].tolist()


def test_train_when_prose_meets_chat_then_they_are_told_apart_and_the_model_is_kept(tmp_path: Path) -> None:
    good, bad = prose(60), [chat(i) for i in range(60)]
    model = quality.train(good + bad, [True] * 60 + [False] * 60, out=tmp_path / "model")
    assert model.report.auc_low >= 0.95  # by the rule of three: 60 of each and no pair in disorder
    loaded = quality.load(tmp_path / "model")
    fresh = pa.array([*prose(90)[60:], *(chat(i) for i in range(1000, 1030))], pa.large_string())
    scores = loaded.score(fresh)
    assert scores.dtype == np.float32
    assert loaded.hash == model.hash
    np.testing.assert_array_equal(scores, model.score(fresh))
    assert scores[:30].mean() > 0.8 > 0.2 > scores[30:].mean()
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".json", ".npz"}


@pytest.mark.slow
def test_train_when_only_the_order_of_words_differs_then_pairs_of_words_show_it() -> None:
    texts = prose(600)
    made = texts[:300] + [shuffled(t, i) for i, t in enumerate(texts[300:])]
    report = quality.train(made, [True] * 300 + [False] * 300).report
    assert report.auc_low > 0.9
    assert report.calibration_error < 0.1


def test_train_when_labels_are_chance_then_half_is_within_the_interval() -> None:
    texts = prose(200)
    rng = random.Random(4)
    report = quality.train(texts, [rng.random() < 0.5 for _ in texts]).report
    assert report.auc_low < 0.5 < report.auc_high
    assert report.brier > 0.2


def test_train_when_copies_are_labelled_then_no_text_is_on_both_sides() -> None:
    texts = prose(40)
    rng = random.Random(5)
    labels = [rng.random() < 0.5 for _ in texts]
    report = quality.train([t for t in texts for _ in range(10)], [v for v in labels for _ in range(10)]).report
    assert report.n_positive + report.n_negative == 40
    assert report.auc_low < 0.6  # a copy in training would make chance look like knowledge


def test_train_when_parts_share_a_file_then_the_file_is_held_out_as_a_whole() -> None:
    rng = random.Random(6)
    groups, texts, labels = [], [], []
    for file in range(20):  # every file has its own words, and a label by chance
        own = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(30)]
        for _ in range(8):
            texts.append(" ".join(rng.choices(own, k=40)))
            labels.append(file % 2 == 0)
            groups.append(str(file))
    assert quality.train(texts, labels).report.auc > 0.95
    assert quality.train(texts, labels, groups=groups).report.auc < 0.8


def test_train_when_done_twice_or_in_another_order_then_the_numbers_are_the_same() -> None:
    good, bad = prose(30), [chat(i) for i in range(30)]
    one = quality.train(good + bad, [True] * 30 + [False] * 30)
    two = quality.train(good + bad, [True] * 30 + [False] * 30)
    assert one.hash == two.hash
    assert one.report == two.report


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ([True] * 40, "0 different texts are labelled bad"),
        ([True] * 37 + [False] * 3, "3 different texts are labelled bad"),
    ],
)
def test_train_when_a_class_has_too_few_texts_then_it_says_how_many_are_needed(labels: list[bool], fault: str) -> None:
    with pytest.raises(UserError, match=f"{fault}.*{LEAST} of each.*data label"):
        quality.train(prose(40), labels)


def test_load_when_the_folder_was_changed_then_it_is_refused(tmp_path: Path) -> None:
    quality.train(prose(20) + [chat(i) for i in range(20)], [True] * 20 + [False] * 20, out=tmp_path / "m")
    about = json.loads((tmp_path / "m" / "model.json").read_text())
    (tmp_path / "m" / "model.json").write_text(json.dumps(about | {"bias": about["bias"] + 1}))
    with pytest.raises(UserError, match="changed or damaged"):
        quality.load(tmp_path / "m")
    with pytest.raises(UserError, match="no classifier here"):
        quality.load(tmp_path)


def test_score_when_text_is_null_empty_or_sliced_then_each_gets_its_own(tmp_path: Path) -> None:
    model = quality.train(prose(20) + [chat(i) for i in range(20)], [True] * 20 + [False] * 20)
    column = pa.array([chat(1), None, "", prose(1)[0], "x"], pa.large_string())
    scores = model.score(column)
    assert scores[1] == scores[2]
    np.testing.assert_array_equal(model.score(column.slice(3, 2)), scores[3:])
    assert len(model.score(pa.array([], pa.large_string()))) == 0


@given(st.text(alphabet="aB é\n1.中!", max_size=30), st.sampled_from([0, 1, 3, 5, 8]))
def test_features_when_text_is_anything_then_counts_are_those_of_the_reference(text: str, chars: int) -> None:
    tokens: list[str] = []
    kinds, _ = w.tables()
    newlines = 0
    word = ""
    for char in text + " ":
        kind = kinds[ord(char)]
        if kind == w.DIGIT and word.endswith("1"):
            continue
        if kind in (w.LETTER, w.DIGIT):
            word += char.lower()
        else:
            if word:
                tokens.append(word)
            word = ""
            newlines = newlines + 1 if kind == w.NEWLINE else newlines if kind == w.SPACE else 0
            if kind == w.NEWLINE and newlines <= 2:
                tokens.append("\n" * newlines)
            elif kind in (w.OTHER, w.ALONE):
                tokens.append(char)
        if kind not in (w.SPACE, w.NEWLINE):
            newlines = 0
    raw = text.encode()
    runs = max(0, len(raw) - chars + 1) if chars else 0
    bag = bag_of(text, chars)
    assert len(bag) == 2 * len(tokens) + runs
    names: dict[object, int] = {}
    pairs = zip(["", *tokens], tokens, strict=False)
    keys = [k for pair in pairs for k in (pair[1], pair)] + [raw[i : i + chars] for i in range(runs)]
    for key, bucket in zip(keys, bag, strict=True):
        assert names.setdefault(key, bucket) == bucket


def test_features_when_lines_or_signs_differ_then_so_do_they() -> None:
    texts = ["end of line", "end of\nline", "end of\n\nline", "end of, line", "endof line"]
    bags = [set(bag_of(text)) for text in texts]
    assert all(a != b for a, b in itertools.combinations(bags, 2))
    assert bag_of("in 1984 A") == bag_of("IN 7 a")
    assert len(features.room(0)) > 0


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.data())
def test_auc_when_computed_then_it_is_the_share_of_pairs_in_order(values: list[int], data: st.DataObject) -> None:
    labels = np.array(
        [True, False, *data.draw(st.lists(st.booleans(), min_size=len(values) - 2, max_size=len(values) - 2))]
    )
    scores = np.array(values, float)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    area, low, high = measure.auc(scores, labels)
    assert area == pytest.approx(np.mean(pairs))
    assert 0 <= low <= area <= high <= 1


def test_auc_when_samples_are_drawn_then_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) < 60
    truth = 0.7602  # of two unit normals one apart: the normal distribution at 1 / sqrt(2)
    inside = 0
    for _ in range(400):
        _, low, high = measure.auc(rng.normal(labels * 1.0, 1.0), labels)
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_platt_when_margins_are_log_odds_then_slope_one_and_shift_zero_come_back() -> None:
    rng = np.random.default_rng(1)
    margins = rng.normal(0, 2, 20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-(1.5 * margins - 0.5)))
    assert measure.platt(margins, labels) == (pytest.approx(1.5, abs=0.08), pytest.approx(-0.5, abs=0.05))
    slope, shift = measure.platt(np.array([-1.0, 1.0] * 20), np.array([False, True] * 20))  # separable: it stays finite
    assert abs(slope) < 20
    assert abs(shift) < 1
