"""A run's folder: what was decided at its start, and the decisions taken later, each durable before it acts.

config.json   settings, model, machine, schedule: resolved once, read back on resume
events.jsonl  decisions inside the run ("decay_started", "ended_early", "spike" and others); mirrored in the ledger when there is one
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.files import read_json, write_json, writing_error
from gptwright.core.ledger import Ledger
from gptwright.core.progress import say
from gptwright.model.config import ModelConfig
from gptwright.train.config import TrainConfig
from gptwright.train.machine import Machine
from gptwright.train.schedule import Schedule

FREE_TO_CHANGE = {
    "log_every",
    "checkpoint_every",
    "checkpoint_async",
    "keep_last",
    "keep_best",
    "micro_tokens",
    "eval_every",
    "watch_every",
    "on_divergence",
    "threads",
    "device",
    "compile",
    "parallel",
    "activation_checkpointing",
    "peer_timeout",
}
"""Settings that a run may go on with in another way than it began; of some the sums are then added in another order."""


@dataclass(frozen=True)
class Resolved:
    """Everything that was "auto" or a time budget, as it was decided at the start."""

    machine: Machine
    schedule: Schedule
    matmul_peak: float
    step_s: float
    evals: int = 10
    eval_s: float = 0.0

    @staticmethod
    def of(stored: dict[str, Any]) -> "Resolved":
        """From what ``asdict`` made of one, perhaps before some of it was kept."""
        return Resolved(
            Machine(**stored["machine"]),
            Schedule(**stored["schedule"]),
            stored["matmul_peak"],
            stored["step_s"],
            stored.get("evals", 10),
            stored.get("eval_s", 0.0),
        )


class RunFolder:
    """Reads and writes the folder's small files.

    Args:
        path: the run's folder; its name is the run's id in the ledger.
        ledger: also told, when given.
        writes: false in all processes of a run but the main one: they only read.
    """

    def __init__(self, path: Path, ledger: Ledger | None, writes: bool = True) -> None:
        self.path, self.ledger, self.id, self.writes = path, ledger if writes else None, path.name, writes
        self.checkpoints = path / "checkpoints"

    def begin(self, stage: str, config: dict[str, Any]) -> None:
        if self.ledger is not None:
            self.ledger.start_run(self.id, stage, config)

    def finish(self, state: str, meta: dict[str, Any]) -> None:
        if self.ledger is not None:
            self.ledger.finish_run(self.id, state, meta)

    def write_config(
        self, config: TrainConfig, model: ModelConfig, plan_key: str, resolved: Resolved, start: Path | None = None
    ) -> None:
        if not self.writes:
            return
        write_json(
            self.path / "config.json",
            {
                "train": config.model_dump(),
                "model": model.model_dump(),
                "plan": plan_key,
                "start": None if start is None else str(start),
                "machine": asdict(resolved.machine),
                "schedule": asdict(resolved.schedule),
                "matmul_peak": resolved.matmul_peak,
                "step_s": resolved.step_s,
                "evals": resolved.evals,
                "eval_s": resolved.eval_s,
            },
        )

    def read_config(self, config: TrainConfig, model: ModelConfig, plan_key: str) -> Resolved | None:
        """What was resolved at the start of this run, or None when it has not started.

        Raises:
            UserError: the folder belongs to a run with other settings, another model or other data.
        """
        if not (self.path / "config.json").exists():
            return None
        stored = read_json(self.path / "config.json")
        now = {"train": config.model_dump(), "model": model.model_dump()}
        defaults = {  # of settings that did not exist when the run began
            part: {name: field.get_default() for name, field in kind.model_fields.items()}
            for part, kind in (("train", TrainConfig), ("model", ModelConfig))
        }
        if stored["train"].get("objective") == "sft":
            defaults["train"]["document_mask"] = "off"
        changed = [
            f"{part}.{key} was {was}, now {value}"
            for part in ("train", "model")
            for key, value in now[part].items()
            if (was := stored[part].get(key, defaults[part][key])) != value
            and not (part == "train" and key in FREE_TO_CHANGE)
        ]
        if stored["plan"] != plan_key:
            changed.append("the data plan changed")
        if changed:
            raise UserError(
                "this run was started with other settings: " + "; ".join(changed),
                where=str(self.path),
                fix="Give the run a new folder, or restore the settings",
            )
        return Resolved.of(stored)

    def decide(self, kind: str, data: dict[str, Any]) -> None:
        """Record a decision durably; only then may it act."""
        if not self.writes:
            return
        path = self.path / "events.jsonl"
        try:
            with open(path, "a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps({"kind": kind, **data}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise writing_error(error, path) from error
        if self.ledger is not None:
            self.ledger.add_event(self.id, kind, data)

    def decisions(self, kind: str) -> list[dict[str, Any]]:
        """Decisions of one kind, oldest first; a line torn by a kill was never acted on and does not count."""
        path = self.path / "events.jsonl"
        found = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if row.get("kind") == kind:
                found.append(row)
        return found

    def as_decided(self, schedule: Schedule) -> Schedule:
        """A schedule with the decisions that changed it: the decay brought forward, the run ended."""
        for event in self.decisions("decay_started"):
            schedule = schedule.ends_early(event["step"], event["steps"])
        for event in self.decisions("ended_early"):
            schedule = replace(schedule, steps=min(schedule.steps, event["step"]))
        return schedule


def warn_if_moved(then: Machine, now: Machine) -> None:
    """Say that bit-identity ends when a run resumes on another class of machine."""
    for name in ("isa", "torch_version", "threads", "kernels", "processes", "parallel"):
        before, after = getattr(then, name), getattr(now, name)
        if before != after and before != "":
            say(
                f"note: this run started with {name} {before} and goes on with {after}; the result will not be bit-identical"
            )
