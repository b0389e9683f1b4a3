"""Refresh: what is new, how training goes on, what is compared."""

import numpy as np
import pytest

from gptwright.core.ledger import Ledger
from gptwright.evaluate.scores import BitsPerByte
from gptwright.release.gate import Check, Verdict
from gptwright.release.refresh import Change, RefreshWork, continued_training, refresh, relative_gap, what_is_new
from gptwright.train.config import TrainConfig


def result(values, first=0):
    sizes = np.full(len(values), 100)
    return BitsPerByte(
        tuple(f"h{i}" for i in range(first, first + len(values))), np.asarray(values) * 100.0, sizes, 1, 0
    )


@pytest.fixture
def chain(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        data = ledger.add_artifact("corpus", stage="corpus", name="corpus", path="c", hash="b2:old")
        tokens = ledger.add_artifact("tokens", stage="tokens", name="t", path="t", hash="b2:t", parents=[data.id])
        model = ledger.add_artifact("model", stage="pretrain", name="m", path="m", hash="b2:m", parents=[tokens.id])
        yield ledger, data, model


def test_what_is_new_when_the_dataset_is_the_parent_then_nothing(chain):
    ledger, data, model = chain
    assert what_is_new(ledger, model, data, {}, {}).kind == "none"


def test_what_is_new_after_files_came_and_went_then_counts_them(chain):
    ledger, _, model = chain
    new = ledger.add_artifact("corpus", stage="corpus", name="corpus", path="c", hash="b2:new")
    change = what_is_new(ledger, model, new, {"a": 1, "b": 1}, {"b": 1, "c": 1, "d": 1})
    assert (change.kind, change.added, change.removed) == ("changed", ("c", "d"), ("a",))
    assert change.old_hash == "b2:old"
    assert "2 new and 1 removed" in change.sentence
    assert what_is_new(ledger, None, new, {}, {"c": 1}).kind == "first"


def test_continued_training_when_new_text_is_ample_then_replay_is_the_share_asked_for():
    change = Change("changed", "o", "n", ("n0", "n1"), ())
    sizes = {"n0": 5000, "n1": 5000} | {f"o{i}": 100 for i in range(500)}
    plan = continued_training(
        change, sizes, stable_checkpoint="s", final_checkpoint="f", budget_bytes=20_000, replay=0.25
    )
    taken = sum(sizes[uid] for uid in plan.replayed)
    assert taken / (taken + 10_000) == pytest.approx(0.25, abs=0.01)
    assert plan.replay == pytest.approx(0.25, abs=0.01)
    assert not set(plan.replayed) & set(change.added)
    assert (plan.start, plan.from_stable) == ("s", True)
    assert plan == continued_training(
        change, sizes, stable_checkpoint="s", final_checkpoint="f", budget_bytes=20_000, replay=0.25
    )


def test_continued_training_when_new_text_is_tiny_then_old_text_fills_up():
    change = Change("changed", "o", "n", ("n0",), ())
    sizes = {"n0": 100} | {f"o{i}": 100 for i in range(500)}
    plan = continued_training(
        change, sizes, stable_checkpoint=None, final_checkpoint="f", budget_bytes=40_000, replay=0.05
    )
    assert (100 + 100 * len(plan.replayed)) * 4 >= 40_000
    assert plan.start == "f"
    config = TrainConfig(max_steps=10, **plan.overrides)
    stable = TrainConfig(
        max_steps=10,
        **continued_training(change, sizes, stable_checkpoint="s", final_checkpoint=None, budget_bytes=1).overrides,
    )
    assert config.warmup_share > stable.warmup_share


def test_relative_gap_then_decides_the_shift():
    before = result([1.0] * 5 + [1.5] * 5)
    gap = relative_gap(before, {f"h{i}" for i in range(5)})
    assert gap == pytest.approx(0.5)
    change = Change("changed", "o", "n", ("n0",), ())
    far = continued_training(
        change, {"n0": 1000, "o0": 500}, stable_checkpoint="s", final_checkpoint=None, budget_bytes=0, gap=gap
    )
    near = continued_training(
        change, {"n0": 1000, "o0": 500}, stable_checkpoint="s", final_checkpoint=None, budget_bytes=0, gap=0.01
    )
    assert (far.shift, near.shift) == ("strong", "weak")
    assert relative_gap(before, set(before.uids)) is None


def test_refresh_with_new_text_then_trains_once_compares_on_old_and_new_and_registers(chain):
    ledger, _, model = chain
    rng = np.random.default_rng(0)
    base = rng.normal(1.5, 0.1, 40)
    scores = {"m": result(base), "m2": result(base - np.where(np.arange(40) < 30, 0.02, 0.3) + rng.normal(0, 0.01, 40))}
    calls = []
    new = ledger.add_artifact("model", stage="refresh", name="m2", path="m2", hash="b2:m2", parents=[model.id])

    def train(settings, change):
        calls.append(("train", settings.shift, change.added))
        return new

    def register(artifact, after, before):
        calls.append(("register", artifact.name))
        return Verdict(True, (Check("x", True, ""),), "m")

    change = Change("changed", "b2:old", "b2:new", ("n0",), ())
    report = refresh(
        change, model, {f"h{i}" for i in range(30)},
        lambda gap: continued_training(change, {"n0": 10}, stable_checkpoint="s", final_checkpoint=None, budget_bytes=0, gap=gap),
        RefreshWork(lambda artifact: scores[artifact.name], train, register),
    )  # fmt: skip
    assert [call[0] for call in calls] == ["train", "register"]
    assert report.on_old is not None
    assert report.on_new is not None
    assert report.on_old.delta == pytest.approx(-0.02, abs=0.01)
    assert report.on_new.delta == pytest.approx(-0.3, abs=0.02)
    assert "m2 is better" in report.sentence
    assert report.to_json()["verdict"]["passed"]


def test_refresh_when_the_old_text_suffers_then_says_that_it_forgot(chain):
    _, _, model = chain
    rng = np.random.default_rng(1)
    base = rng.normal(1.5, 0.1, 40)
    worse = base + np.where(np.arange(40) < 30, 0.1, -0.5) + rng.normal(0, 0.01, 40)
    results = iter([result(base), result(worse)])
    change = Change("changed", "o", "n", ("n0",), ())
    report = refresh(
        change, model, {f"h{i}" for i in range(30)},
        lambda gap: continued_training(change, {"n0": 10}, stable_checkpoint="s", final_checkpoint=None, budget_bytes=0),
        RefreshWork(lambda a: next(results), lambda s, c: model, lambda m, a, b: Verdict(False, (Check("q", False, "no"),), "m")),
    )  # fmt: skip
    assert "forgot some of the old text (+0.09" in report.sentence
    assert "the gate says no: q: no" in report.sentence


@pytest.mark.parametrize("kind", ["none", "first"])
def test_refresh_without_anything_to_do_then_does_nothing(chain, kind):
    _, _, model = chain

    def never(*_):
        raise AssertionError("no work expected")

    report = refresh(
        Change(kind, "o", "n"), model if kind == "none" else None, set(), never, RefreshWork(never, never, never)
    )
    assert report.model is None
    assert report.sentence
