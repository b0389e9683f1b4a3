"""Keeping a model up to date: what is new, how training goes on, and whether the result is better. Logic only; the work is handed in.

The recipe: continue from the checkpoint before the decay, where the rate is still at its peak, mix old documents among the new
ones, decay again, then compare old and new on the held-out documents that the old model was judged by.

Source: arXiv 2403.08763 (re-warming, re-decaying and replay match training anew); arXiv 2404.06395 §4 (warm-up, stable, decay).
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gptwright.core.ledger import Artifact, Ledger
from gptwright.evaluate.scores import BitsPerByte, compare_bpb
from gptwright.evaluate.statistics import Comparison
from gptwright.release.gate import Verdict

# Starting points of 2026-11, ours: small models; not fitted by measurements of gptwright yet. 2403.08763 reports 5 % replay
# for a weak shift of distribution and 25 % for a strong one.
REPLAY = {"weak": 0.05, "strong": 0.25}
REWARM_STABLE = (
    0.02  # from the stable checkpoint the rate is at its peak already; a short rise lets the optimizer see new data
)
REWARM_DECAYED = 0.1  # from decayed weights the rate starts at nothing
STRONG_GAP = 0.15  # new text costs the old model this much more than old text, relative: a strong shift
MAX_EPOCHS = 4.0  # passes over the mixed text; beyond it, more old text is replayed instead

DATA_KINDS = ("corpus", "dataset")


@dataclass(frozen=True)
class Change:
    """Whether the data changed since production was trained. ``kind``: none, first (no production) or changed."""

    kind: Literal["none", "first", "changed"]
    old_hash: str | None
    new_hash: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """For a person."""
        if self.kind == "none":
            return "the data is what production was trained on; nothing to do"
        if self.kind == "first":
            return "there is no production model yet; run and promote one first"
        return f"{len(self.added)} new and {len(self.removed)} removed documents since production was trained"


@dataclass(frozen=True)
class ContinuedTraining:
    """How training goes on. ``overrides`` are fields of TrainConfig."""

    start: str | None
    from_stable: bool
    shift: Literal["weak", "strong"]
    replay: float
    replayed: tuple[str, ...]
    overrides: dict[str, Any]
    why: str


@dataclass(frozen=True)
class RefreshWork:
    """What the project does for a refresh; each is called at most once per model."""

    evaluate: Callable[[Artifact], BitsPerByte]
    """A model on the present held-out set."""
    train: Callable[[ContinuedTraining, Change], Artifact]
    """Continue training; gives the new model's artifact."""
    register: Callable[[Artifact, BitsPerByte, BitsPerByte], Verdict]
    """Gate and register the candidate (new model, its result, production's result)."""


@dataclass(frozen=True)
class RefreshReport:
    """What a refresh did. ``on_old``/``on_new``: new model minus old in bits per byte on old and on new held-out documents."""

    change: Change
    plan: ContinuedTraining | None = None
    model: str | None = None
    on_all: Comparison | None = None
    on_old: Comparison | None = None
    on_new: Comparison | None = None
    verdict: Verdict | None = None

    @property
    def sentence(self) -> str:
        """For a person: what was new, what came of it."""
        if self.on_all is None or self.verdict is None:
            return self.change.sentence
        found = self.on_all.verdict(lower_is_better=True, a=str(self.model), b="production")
        parts = [self.change.sentence, found]
        if self.on_old is not None and self.on_old.significant and self.on_old.delta > 0:
            parts.append(f"it forgot some of the old text ({self.on_old.delta:+.4f} bits/byte)")
        if self.verdict.passed:
            parts.append(f"promote it with: gptwright release promote {self.model}")
        else:
            parts.append("the gate says no: " + "; ".join(self.verdict.reasons))
        return ". ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """A JSON object for reports."""
        return {**asdict(self), "verdict": self.verdict.to_json() if self.verdict else None, "sentence": self.sentence}


def what_is_new(
    ledger: Ledger,
    production: Artifact | None,
    dataset: Artifact,
    old_uids: Mapping[str, int],
    new_uids: Mapping[str, int],
) -> Change:
    """Compare the dataset's hash with that of the data production descends from.

    Args:
        production: the model in production.
        dataset: as built now.
        old_uids, new_uids: documents (uid to bytes) of then and now; used to count only when the hashes differ.
    """
    if production is None:
        return Change("first", None, dataset.hash, tuple(new_uids))
    data = [a for a in ledger.ancestors(production.id) if a.kind in DATA_KINDS]
    old = data[-1].hash if data else None
    if old == dataset.hash:
        return Change("none", old, dataset.hash)
    added = tuple(uid for uid in new_uids if uid not in old_uids)
    removed = tuple(uid for uid in old_uids if uid not in new_uids)
    return Change("changed", old, dataset.hash, added, removed)


def continued_training(
    change: Change,
    sizes: Mapping[str, int],
    *,
    stable_checkpoint: str | None,
    final_checkpoint: str | None,
    budget_bytes: float,
    replay: float | None = None,
    gap: float | None = None,
    seed: int = 0,
) -> ContinuedTraining:
    """Decide how training goes on.

    Args:
        change: what is new.
        sizes: bytes of every present training document by uid, old and new.
        stable_checkpoint: of production's run, before its decay; preferred.
        final_checkpoint: production's last checkpoint or weights, when the other is gone.
        budget_bytes: text that the planned steps read, in bytes.
        replay: share of old text; None chooses by ``gap``.
        gap: production's bits per byte on new text over that on old text, minus 1; None counts as a strong shift, the safe side.
        seed: of the choice of old documents.
    """
    shift: Literal["weak", "strong"] = "strong" if gap is None or gap > STRONG_GAP else "weak"
    share = REPLAY[shift] if replay is None else replay
    added = set(change.added)
    new_bytes = sum(size for uid, size in sizes.items() if uid in added)
    old = sorted(uid for uid in sizes if uid not in added)
    # Little new text would be read over and over: fill up with old text to MAX_EPOCHS passes.
    wanted = max(share / max(1e-9, 1 - share) * new_bytes, budget_bytes / MAX_EPOCHS - new_bytes)
    random.Random(seed).shuffle(old)
    chosen, taken = [], 0
    for uid in old:
        if taken >= wanted:
            break
        chosen.append(uid)
        taken += sizes[uid]
    start = stable_checkpoint or final_checkpoint
    from_stable = stable_checkpoint is not None
    overrides = {"warmup_share": REWARM_STABLE if from_stable else REWARM_DECAYED}
    total = new_bytes + taken
    told = "not measured" if gap is None else f"{gap:+.0%}"
    why = (
        f"from the {'checkpoint before the decay' if from_stable else 'final weights, warmed up again' if start else 'beginning'};"
        f" shift {shift} (new text costs {told}); {taken / total if total else 0:.0%} of the text is old"
    )
    return ContinuedTraining(
        start, from_stable, shift, taken / total if total else 0.0, tuple(sorted(chosen)), overrides, why
    )


def relative_gap(result: BitsPerByte, old_uids: set[str]) -> float | None:
    """How much more new held-out text costs a model than old, relative; None when either part is empty."""
    old, new = result.only(old_uids), result.only(set(result.uids) - old_uids)
    if not old.uids or not new.uids:
        return None
    return new.value / old.value - 1


def refresh(
    change: Change,
    production: Artifact | None,
    old_heldout: set[str],
    plan: Callable[[float | None], ContinuedTraining],
    work: RefreshWork,
    *,
    if_changed: bool = True,
) -> RefreshReport:
    """Bring the model up to date, if there is anything to bring.

    Args:
        change: from ``what_is_new``.
        production: the model in production.
        old_heldout: held-out documents that production was judged by.
        plan: gives the continued training for a measured gap (see ``relative_gap``).
        work: what the project does.
        if_changed: stop early when the data is the same.
    """
    if production is None or (change.kind == "none" and if_changed):
        return RefreshReport(change)
    before = work.evaluate(production)
    settings = plan(relative_gap(before, old_heldout))
    model = work.train(settings, change)
    after = work.evaluate(model)
    verdict = work.register(model, after, before)
    fresh = set(after.uids) - old_heldout
    on_all, on_old, on_new = (_paired(after, before, uids) for uids in (set(after.uids), old_heldout, fresh))
    return RefreshReport(change, settings, model.name, on_all, on_old, on_new, verdict)


def _paired(a: BitsPerByte, b: BitsPerByte, uids: set[str]) -> Comparison | None:
    shared = uids & set(a.uids) & set(b.uids)
    return compare_bpb(a.only(shared), b.only(shared)) if len(shared) >= 2 else None
