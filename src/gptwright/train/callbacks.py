"""What is called while a run goes on, and may keep a state of its own in the run's checkpoints.

A plain function of ``StepInfo`` will do for looking on. A ``Callback`` also sees the lines of metrics.jsonl, may end the run, and
finds its state again after a kill: it is saved with the weights, so what it decides is decided alike.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write
from gptwright.model.transformer import Transformer

Sample = Callable[[Transformer, str], str]


@dataclass(frozen=True)
class StepInfo:
    """What callbacks are told after every step.

    Args:
        step: steps done.
        steps: of the whole run.
        loss: of the step.
        heldout_bpb: as last measured, bits per byte; None before the first time.
        tokens: seen so far.
        tokens_per_s: a moving mean.
        lr_share: of the peak rates.
        measured: whether the held-out text was measured after this step.
    """

    step: int
    steps: int
    loss: float
    heldout_bpb: float | None
    tokens: int
    tokens_per_s: float
    lr_share: float
    measured: bool = False


@dataclass(frozen=True)
class RunView:
    """A run as callbacks may see it.

    Args:
        id: of the run.
        folder: of the run.
        label: what it is for.
        config: the settings of the run, as they are in config.json.
        steps: planned.
        step: done, as the process begins.
        model: with the working weights; to be looked at, never to be changed.
    """

    id: str
    folder: Path
    label: str
    config: Mapping[str, Any]
    steps: int
    step: int
    model: Transformer


class Callback:
    """The base: does nothing, keeps nothing.

    Attributes:
        key: names its state in the checkpoint; "" when it has none.
        reads_model: whether it computes with the model, which a process that holds only a part of it cannot.
    """

    key = ""
    reads_model = False

    def begin(self, run: RunView) -> None:
        """Before the first step of this process; ``load`` was called before, if there was a state."""

    def step(self, info: StepInfo) -> str | None:
        """After every step. A text ends the run after this step: it is the reason, recorded before it acts."""
        return None

    def line(self, row: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl was written."""

    def end(self, state: str, facts: Mapping[str, Any]) -> None:
        """The process stops working on the run.

        Args:
            state: "done", "interrupted" or "failed".
            facts: what is in result.json.
        """

    def state(self) -> dict[str, Any]:
        """All that later calls depend on, as JSON knows it."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put a state back."""


AnyCallback = Callback | Callable[[StepInfo], Any]


class Callbacks:
    """All callbacks of a run, as one.

    Args:
        given: in the order in which they are called.
    """

    def __init__(self, given: Iterable[AnyCallback]) -> None:
        self.all = [one if isinstance(one, Callback) else _Plain(one) for one in given]
        keys = [one.key for one in self.all if one.key]
        if len(keys) != len(set(keys)):
            raise ValueError(f"two callbacks with one key: {', '.join(sorted(keys))}")

    def without_model(self) -> int:
        """Leave out those that compute with the model. Returns how many."""
        kept = [one for one in self.all if not one.reads_model]
        dropped, self.all = len(self.all) - len(kept), kept
        return dropped

    def begin(self, run: RunView) -> None:
        """See ``Callback``."""
        for one in self.all:
            one.begin(run)

    def step(self, info: StepInfo) -> str | None:
        """See ``Callback``; the first reason to end the run, if any. All are called."""
        reasons = [one.step(info) for one in self.all]
        return next((reason for reason in reasons if reason), None)

    def line(self, row: Mapping[str, Any]) -> None:
        """See ``Callback``."""
        for one in self.all:
            one.line(row)

    def end(self, state: str, facts: Mapping[str, Any]) -> None:
        """See ``Callback``."""
        for one in self.all:
            one.end(state, facts)

    def state(self) -> dict[str, dict[str, Any]]:
        """States by key.

        Raises:
            UserError: a state is not JSON.
        """
        states = {one.key: one.state() for one in self.all if one.key}
        for key, state in states.items():
            try:
                json.dumps(state)
            except (TypeError, ValueError) as error:
                raise UserError(f"the state of the callback {key} cannot be kept: {error}", where=key) from error
        return states

    def load(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Give each its state back; one that was not there when the checkpoint was written begins anew."""
        for one in self.all:
            if one.key and one.key in states:
                one.load(states[one.key])


class _Plain(Callback):
    def __init__(self, call: Callable[[StepInfo], Any]) -> None:
        self.call = call

    def step(self, info: StepInfo) -> str | None:
        self.call(info)
        return None


@dataclass
class EarlyStop(Callback):
    """Ends a run when the held-out text is not predicted better any more.

    Args:
        patience: measurements in a row without a better one.
        least: bits per byte by which a better one must be better.
    """

    patience: int
    least: float = 0.0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    key = "early_stop"

    def step(self, info: StepInfo) -> str | None:
        """See ``Callback``."""
        if not info.measured or info.heldout_bpb is None:
            return None
        if self.best is None or info.heldout_bpb < self.best - self.least:
            self.best, self.best_step, self.waited = info.heldout_bpb, info.step, 0
            return None
        self.waited += 1
        if self.waited < self.patience or info.step >= info.steps:
            return None
        return (
            f"held-out text was not predicted better in {self.waited} measurements; "
            f"the best were {self.best:.3f} bits per byte after step {self.best_step}"
        )

    def state(self) -> dict[str, Any]:
        """See ``Callback``."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load(self, state: Mapping[str, Any]) -> None:
        """See ``Callback``."""
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]


@dataclass
class Samples(Callback):
    """Lets the model write now and then: samples.jsonl in the run's folder, a line a prompt.

    Args:
        sample: (model, prompt) -> text; leaves torch's generator alone.
        prompts: openings.
        every: steps between samples.
        show: is given a line for a person.
    """

    sample: Sample
    prompts: list[str]
    every: int
    show: Callable[[str], None] = print
    run: RunView | None = field(default=None, init=False)
    reads_model = True

    def begin(self, run: RunView) -> None:
        """See ``Callback``; samples of steps that are taken again are dropped."""
        self.run = run
        kept = [row for row in read_samples(run.folder) if row["step"] <= run.step]
        with atomic_write(run.folder / "samples.jsonl", "w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)

    def step(self, info: StepInfo) -> str | None:
        """See ``Callback``."""
        assert self.run is not None
        if info.step % self.every and info.step != info.steps:
            return None
        model = self.run.model
        training = model.training
        try:
            for prompt in self.prompts:
                text = self.sample(model.eval(), prompt)
                row = {"step": info.step, "prompt": prompt, "text": text}
                with open(self.run.folder / "samples.jsonl", "a", encoding="utf-8", newline="\n") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                self.show(f"step {info.step}: {prompt} | {' '.join(text.split())[:120]}")
        finally:
            model.train(training)
        return None


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """What a run wrote while it was trained: step, prompt, text; nothing when it was not asked to."""
    path, rows = folder / "samples.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # torn by a kill
    return rows
