"""Every pretraining run is forecast before it begins and compared with its forecast when it has ended; the ledger and the run's folder hold both.

The comparisons are events of the run, so that what a project has learnt is read from the ledger and kept nowhere else. Memory is compared
without what earlier stages left in the process: the same run takes as much after them as in a process of its own.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.files import read_json, write_json
from gptwright.core.ledger import Ledger
from gptwright.core.progress import clock, say, short
from gptwright.model.config import ModelConfig
from gptwright.model.cost import params
from gptwright.plan.constants import CONSTANTS
from gptwright.plan.host import Here
from gptwright.plan.law import Law, forecast
from gptwright.plan.learnt import Learnt, compare, learn
from gptwright.plan.memory import held_bytes, peak_bytes, reset_peak
from gptwright.plan.probe import Machine, cores, cpu_name
from gptwright.train.config import TrainConfig
from gptwright.train.machine import give_back_memory

if TYPE_CHECKING:
    from gptwright.project.project import Project
    from gptwright.train.result import TrainResult

MADE, CHECKED = "forecast", "forecast_checked"
_MACHINE = "machine.json"
_FILE = "forecast.json"
_TOLD_BYTES = 50_000_000  # held by earlier stages: less is not worth a word


def remember(work: Path, machine: Machine) -> None:
    """Keep a probe of this machine, for forecasts of runs that begin without one."""
    if work.is_dir():
        write_json(work / _MACHINE, machine.to_json())


def recall(work: Path) -> Machine | None:
    """The last probe, if it was of this machine; a faulty file is no probe."""
    try:
        found = Machine.from_json(read_json(work / _MACHINE))
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return found if (found.cpu, found.cores) == (cpu_name(), cores()) else None


def learnt(project: "Project") -> Learnt:
    """What the finished runs of a project teach its next forecasts."""
    if not project.has_ledger:
        return Learnt()
    with project.ledger() as ledger:
        return learnt_from(ledger)


def learnt_from(ledger: Ledger) -> Learnt:
    """The same from an open ledger."""
    rows = [event.data for run in ledger.runs("pretrain") for event in ledger.events(run.id, CHECKED)]
    return learn(rows, Law.load() if rows else None)


@dataclass(frozen=True)
class Foresight:
    """The forecast of one run, from its beginning to its comparison.

    Args:
        folder: of the run.
        ledger: its events go there.
        said: what was forecast.
        shape: of the model.
        unique: tokens of the text.
        earlier: held by the process from stages that ran before in it; None where the system does not tell. Bytes.
    """

    folder: Path
    ledger: Ledger
    said: Mapping[str, Any]
    shape: ModelConfig
    unique: int
    earlier: int | None = None

    @classmethod
    def begin(
        cls, folder: Path, ledger: Ledger, work: Path, shape: ModelConfig, config: TrainConfig, unique: int
    ) -> "Foresight":
        """Forecast a run that is about to start; of one that goes on, the forecast of its start is read again."""
        path = folder / _FILE
        if path.is_file():
            said = read_json(path)
        else:
            said = foresee(shape, config, unique, recall(work), learnt_from(ledger))
            write_json(path, said)
            ledger.add_event(folder.name, MADE, said)
        return cls(folder, ledger, said, shape, unique, _earlier())

    def end(self, result: "TrainResult") -> dict[str, Any]:
        """Compare, write the comparison down, and say it. A run that had ended before is not compared again."""
        law = Law.load()
        on_cpu = self.said.get("device") == "cpu"
        # At the tokens that it saw: how many fit the time is a matter of speed, and compared as such.
        bits = law(params(self.shape), result.tokens, self.unique) if result.tokens else None
        peak = peak_bytes() if on_cpu and self.earlier is not None else None
        rows: dict[str, Any] = compare(
            {**self.said["uncorrected"], "bits_per_byte": bits},
            {
                "bits_per_byte": result.heldout_bpb,
                "tokens_per_s": result.tokens_per_s,
                "memory": None if peak is None or self.earlier is None else peak - self.earlier,
            },
        )
        if "memory" in rows:
            rows["memory"]["earlier"] = self.earlier
        known = self.ledger.events(self.folder.name, CHECKED)
        if known:
            return dict(known[-1].data)
        size = {"params": params(self.shape), "tokens": result.tokens, "unique_tokens": self.unique}
        made = {**rows, **size, "seconds": result.seconds}
        self.ledger.add_event(self.folder.name, CHECKED, made)
        write_json(self.folder / _FILE, {**self.said, "compared": made})
        if rows:
            say(f"pretrain: {'; '.join(lines(rows))}")
        return made


def _earlier() -> int | None:
    """Give back what earlier stages have freed, let the peak begin anew, and say what they still hold. Bytes."""
    give_back_memory()
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    reset_peak()
    held = held_bytes()
    return None if held is None else max(0, held - CONSTANTS.begin_bytes)


def foresee(
    shape: ModelConfig, config: TrainConfig, unique: int, machine: Machine | None, own: Learnt
) -> dict[str, Any]:
    """Forecasts of a run, with and without what the project has learnt.

    Args:
        shape: of the model.
        config: of the run, with steps or a time.
        unique: tokens of the text.
        machine: probed; None: nothing is said of speed and memory.
        own: what earlier runs taught.
    """
    batch = max(1, int(config.batch_tokens) // shape.seq_len) * shape.seq_len
    raw: dict[str, Any] = {"tokens_per_s": None, "memory": None}
    if machine is not None:
        host = Here(machine, config.checkpoint_async)
        raw = {"tokens_per_s": 1 / host.token_seconds(shape, batch), "memory": sum(host.memory(shape, batch).values())}
    speed = raw["tokens_per_s"] and own.speed * raw["tokens_per_s"]
    tokens = None if config.max_steps is None else int(config.max_steps) * batch
    if config.max_time is not None and speed:
        fitting = max(batch, int(float(config.max_time) * speed))
        tokens = fitting if tokens is None else min(tokens, fitting)
    law = Law.load()
    loss = None if tokens is None else forecast(law, params(shape), tokens, unique, own.loss(law)).to_json()
    return {
        "device": machine.device if machine else None,
        "tokens": tokens,
        "bits_per_byte": loss,
        "tokens_per_s": speed,
        "seconds": tokens / speed if tokens and speed else None,
        "memory": raw["memory"] and raw["memory"] + own.memory,
        "learnt_from": own.runs,
        "uncorrected": {
            **raw,
            "bits_per_byte": None if tokens is None else law(params(shape), tokens, unique),
        },
    }


def lines(rows: Mapping[str, Any]) -> list[str]:
    """A comparison for a person."""
    shown: dict[str, tuple[str, Callable[[float], str]]] = {
        "bits_per_byte": ("bits per byte", lambda value: f"{value:.3f}"),
        "tokens_per_s": ("tokens/s", short),
        "memory": ("memory", lambda value: f"{value / 1e9:.2f} GB"),
    }
    said = [
        f"{name} {form(rows[kind]['fact'])}, forecast {form(rows[kind]['forecast'])} ({100 * (rows[kind]['ratio'] - 1):+.0f} %)"
        for kind, (name, form) in shown.items()
        if kind in rows
    ]
    earlier = rows.get("memory", {}).get("earlier") or 0
    if earlier >= _TOLD_BYTES:
        said[-1] += f", beside {earlier / 1e9:.2f} GB of earlier stages"
    return said


def told(data: Mapping[str, Any]) -> str:
    """A forecast for a person."""
    parts = []
    if loss := data.get("bits_per_byte"):
        parts.append(f"{loss['value']:.3f} bits per byte ({loss['low']:.3f} to {loss['high']:.3f})")
    if speed := data.get("tokens_per_s"):
        parts.append(f"{short(speed)} tokens/s")
    if seconds := data.get("seconds"):
        parts.append(clock(seconds))
    if memory := data.get("memory"):
        parts.append(f"{memory / 1e9:.2f} GB")
    return ", ".join(parts) or "nothing: this machine was not probed"
