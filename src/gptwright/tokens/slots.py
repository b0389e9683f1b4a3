"""What a run saw when: enough of its plan, kept in the run's folder, to say which steps held a document. No text, no tokens.

slots.json   for pretraining: the data set and the shape of the plan over it
slots.npz    for fine-tuning by any method: ids of the examples, hashes of their texts, and which row holds which
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from gptwright.core.files import atomic_write, read_json, write_json
from gptwright.tokens.permute import Permutation
from gptwright.tokens.plan import BatchPlan
from gptwright.tokens.sft import SftPlan
from gptwright.tokens.shards import MANIFEST, TokenDataset


class Slots(Protocol):
    """The places of documents in the steps of a plan."""

    def steps_of(self, uid: str, n_steps: int) -> list[int]:
        """Steps below n_steps whose batches hold a document: by its id, or by the ``norm_id`` of a text that an example holds."""
        ...


class RowSlots:
    """Slots of a fine-tuning plan: rows, each of one or more examples, in a new order every epoch.

    Args:
        uids: (examples,) str.
        members: (items,) int64, the example of each item, row after row.
        edges: (rows + 1,) int64, where rows begin in ``members``.
        batch_size: rows in a step.
        seed: of the plan.
        label: of the permutation that orders the rows.
        norms: (texts,) str, norm_ids of texts that examples hold.
        holders: (texts,) int64, the example that holds each.
    """

    def __init__(
        self,
        uids: npt.NDArray[np.str_],
        members: npt.NDArray[np.int64],
        edges: npt.NDArray[np.int64],
        batch_size: int,
        seed: int,
        label: str = "rows",
        norms: npt.NDArray[np.str_] | None = None,
        holders: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.uids, self.members, self.edges, self.batch_size, self.seed = uids, members, edges, batch_size, seed
        self.label = label
        self.norms = np.array([], dtype=np.str_) if norms is None else norms
        self.holders = np.array([], dtype=np.int64) if holders is None else holders

    @classmethod
    def of(cls, plan: SftPlan) -> "RowSlots":
        """The slots of a plan."""
        uids = np.array([plan.chats.uid(index) for index in range(len(plan.chats))])
        return cls(uids, plan.members, plan.row_edges, plan.batch_size, plan.seed)

    def holding(self, texts: Mapping[str, Sequence[str]]) -> "RowSlots":
        """The same, with the norm_ids of the texts that examples hold, by their ids."""
        pairs = [(norm, index) for index, uid in enumerate(self.uids.tolist()) for norm in texts.get(uid, ())]
        norms = np.array([norm for norm, _ in pairs], dtype=np.str_)
        holders = np.array([index for _, index in pairs], dtype=np.int64)
        shape = (self.members, self.edges, self.batch_size, self.seed, self.label)
        return RowSlots(self.uids, *shape, norms=norms, holders=holders)

    def steps_of(self, uid: str, n_steps: int) -> list[int]:
        """See ``Slots``."""
        mine = np.union1d(np.flatnonzero(self.uids == uid), self.holders[self.norms == uid])
        items = np.flatnonzero(np.isin(self.members, mine))
        rows = np.unique(np.searchsorted(self.edges, items, side="right") - 1)
        count = len(self.edges) - 1
        found: set[int] = set()
        for epoch in range(-(-n_steps * self.batch_size // count) if len(rows) else 0):
            places = Permutation(count, self.label, self.seed, epoch).place(rows)
            found |= {(epoch * count + place) // self.batch_size for place in places.tolist()}
        return sorted(step for step in found if step < n_steps)


class HasSlots(Protocol):
    """A plan of any kind that can say which example stands in which row."""

    def slots(self) -> RowSlots: ...


def record_slots(plan: object, run_dir: Path, root: Path, texts: Mapping[str, Sequence[str]] | None = None) -> None:
    """Keep a plan's slots in a run's folder; a plan that has none leaves no trace.

    Args:
        plan: what the run trains on.
        run_dir: its folder; it is made when it is not there.
        root: the project folder, from which the data set's place is remembered.
        texts: norm_ids of the texts that an example holds, by its id, for examples that are no documents of the corpus.
    """
    if isinstance(plan, BatchPlan):
        run_dir.mkdir(parents=True, exist_ok=True)
        folder = plan.dataset.folder.resolve().relative_to(root.resolve()).as_posix()
        shape = {"seq_len": plan.seq_len, "batch_size": plan.batch_size, "seed": plan.seed}
        write_json(run_dir / "slots.json", {"dataset": folder, "origin": plan.dataset.origin, **shape})
        return
    if isinstance(plan, SftPlan):
        slots = RowSlots.of(plan)
    elif hasattr(plan, "slots"):
        slots = cast(HasSlots, plan).slots()
    else:
        return
    slots = slots.holding(texts or {})
    run_dir.mkdir(parents=True, exist_ok=True)
    with atomic_write(run_dir / "slots.npz") as file:
        np.savez_compressed(
            file, uids=slots.uids, members=slots.members, edges=slots.edges, order=[slots.batch_size, slots.seed],
            label=np.array(slots.label), norms=slots.norms, holders=slots.holders,
        )  # fmt: skip


def recall_slots(run_dir: Path, root: Path) -> Slots | None:
    """The slots of a run; None when it left none, or its data set is gone or was written anew."""
    if (run_dir / "slots.npz").is_file():
        with np.load(run_dir / "slots.npz", allow_pickle=False) as kept:
            batch_size, seed = kept["order"].tolist()
            slots = RowSlots(kept["uids"], kept["members"], kept["edges"], batch_size, seed)
            if "label" in kept:  # runs of before there was more than one kind have none
                slots.label, slots.norms, slots.holders = str(kept["label"]), kept["norms"], kept["holders"]
            return slots
    if not (run_dir / "slots.json").is_file():
        return None
    kept = read_json(run_dir / "slots.json")
    folder = root / kept["dataset"]
    if not (folder / MANIFEST).is_file():
        return None
    dataset = TokenDataset.open(folder, verify=False)
    if dataset.origin != kept["origin"]:
        return None
    return BatchPlan(dataset, kept["seq_len"], kept["batch_size"], kept["seed"])
