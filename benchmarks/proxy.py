"""Small training runs for sweeps and ablations: one proxy is one row of JSON, kept in a file, so that a series can be stopped and continued.

Text: the tokens of a finished project (``--project``), the starter's as ``gptwright new demo && gptwright run tokens`` makes them.
A run is described by few fields (``Spec``); what is measured is held-out bits per byte on all of its held-out documents.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gptwright.corpus.view import documents
from gptwright.evaluate.bpb import heldout_windows
from gptwright.model.config import ModelConfig
from gptwright.model.presets import modern
from gptwright.model.transformer import Transformer
from gptwright.project.project import Project
from gptwright.tokens.plan import BatchPlan
from gptwright.tokens.shards import TokenDataset, write_tokens
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout
from gptwright.train.dial import settings_for
from gptwright.train.schedule import Schedule
from gptwright.train.stepper import Stepper

SEQ_LEN = 256
# What differs from the defaults of today: the rows were made when 2 % of warm-up and a decay of 0.1 were, and new ones must compare with them.
THEN = {"warmup_share": 0.02, "weight_decay": 0.1}


@dataclass(frozen=True)
class Spec:
    """One proxy run.

    Args:
        series: which experiment it belongs to.
        depth: blocks; width is 64 a block unless ``width`` says otherwise.
        steps: optimizer steps.
        rows: of 256 tokens in a step.
        seed: of weights and order of data.
        train: settings that differ from the defaults of ``TrainConfig`` and ``THEN``.
        model: fields of the shape that differ from ``modern``'s.
        variant: a change that no setting makes (see ``ablations.py``).
        width: 0: 64 a block.
        unique: of so many different tokens, which are read again and again; 0: of all there are.
        first: steps of a run by the defaults before, whose weights and place in the text this one starts from.
    """

    series: str
    depth: int
    steps: int
    rows: int = 16
    seed: int = 0
    train: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    width: int = 0
    unique: int = 0
    first: int = 0

    @property
    def key(self) -> str:
        """Equal for equal runs, whatever series asked for them."""
        usual = TrainConfig.model_validate({"max_steps": 1, **THEN}).model_dump()
        values = {name: value for name, value in asdict(self).items() if name != "series"}
        values["train"] = {name: value for name, value in self.train.items() if value != usual[name]}
        return json.dumps(values, sort_keys=True)


class Text:
    """A project's tokens and its held-out documents as batches."""

    def __init__(self, project: Path) -> None:
        opened = Project.open(project)
        self.tokenizer = Tokenizer.load(opened.work / "tokenizer")
        folder = next(path.parent for path in sorted((opened.work / "tokens").glob("*/dataset.json")))
        self.dataset, self._corpus, self._few = TokenDataset.open(folder), opened.work / "corpus", {}
        windows = list(heldout_windows(self.tokenizer, list(documents(opened.work / "corpus", "heldout")), SEQ_LEN))
        batches = []
        for start in range(0, len(windows), 16):
            tokens = np.zeros((16, SEQ_LEN), dtype=np.int64)
            targets = np.full((16, SEQ_LEN), -100, dtype=np.int64)
            for row, (inputs, goals) in enumerate(windows[start : start + 16]):
                tokens[row, : len(inputs)], targets[row, : len(goals)] = inputs, goals
            batches.append(_Batch(tokens, targets))
        self.heldout = Heldout(batches, self.tokenizer.byte_lengths)
        self.heldout_bytes = self.heldout.size_bytes()

    def of(self, unique: int) -> TokenDataset:
        """The data set, or one of its first documents with so many tokens together."""
        if unique and unique not in self._few:
            per_token, taken, chosen = self.dataset.size_bytes / self.dataset.n_tokens, 0.0, []
            for document in documents(self._corpus, "train"):
                if taken >= unique:
                    break
                chosen.append(document)
                taken += len(document.text.encode()) / per_token
            folder = Path(tempfile.mkdtemp()) / "tokens"
            write_tokens(chosen, self.tokenizer, folder)
            self._few[unique] = TokenDataset.open(folder)
        return self._few[unique] if unique else self.dataset


@dataclass(frozen=True)
class _Batch:
    tokens: np.ndarray
    targets: np.ndarray
    docs: tuple[str, ...] = ()


def shape_of(spec: Spec, vocab_size: int) -> ModelConfig:
    """The model of a proxy."""
    made = modern(depth=spec.depth, vocab_size=vocab_size, seq_len=SEQ_LEN)
    if spec.width:
        wide = modern(depth=spec.width // 64, vocab_size=vocab_size, seq_len=SEQ_LEN)
        made = wide.model_copy(update={"n_layers": spec.depth})
    return ModelConfig.model_validate({**made.model_dump(), **spec.model})


def run(spec: Spec, text: Text, change: Callable[[Spec, Transformer], None] | None = None) -> dict[str, Any]:
    """Train one proxy and measure it.

    Args:
        spec: what to run.
        text: on what.
        change: is given the new model, to alter what no setting does.

    Returns:
        The row: the spec, parameters, tokens, bits per byte, mean training loss of the last tenth, CPU and wall seconds.
    """
    begin, cpu = time.perf_counter(), time.process_time()
    config = TrainConfig.model_validate({"max_steps": spec.steps, "seed": spec.seed, **THEN, **spec.train})
    shape = shape_of(spec, text.tokenizer.padded_vocab_size)
    model = Transformer(shape)
    model.init_weights(spec.seed)
    if change is not None:
        change(spec, model)
    if spec.first:
        _begin(spec, model, text)
    stepper, losses = _steps(spec, model, config, text, spec.first)
    finite = len(losses) == spec.steps
    nats = sum(stepper.evaluate(batch)[0] for batch in text.heldout.batches)
    stepper.finished()
    tail = losses[-max(1, spec.steps // 10) :]
    return {
        **asdict(spec),
        "params": sum(p.numel() for p in model.parameters()),
        "d_model": shape.d_model,
        "tokens": spec.steps * spec.rows * SEQ_LEN,
        "bpb": nats / math.log(2) / text.heldout_bytes if finite and math.isfinite(nats) else None,
        "train_loss": sum(tail) / len(tail) if finite else None,
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.perf_counter() - begin, 1),
    }


def _steps(spec: Spec, model: Transformer, config: TrainConfig, text: Text, start: int) -> tuple[Stepper, list[float]]:
    """Train from a place in the text on. Returns the stepper, still open, and the loss of each step until one was no number."""
    plan = BatchPlan(text.of(spec.unique), SEQ_LEN, spec.rows, spec.seed)
    stepper = Stepper(model, config, machine.choose(config), rows=spec.rows)
    steps = int(config.max_steps or 0)
    schedule = Schedule.of(steps, config.warmup_share, config.decay_share, config.final_lr_share, config.decay)
    losses: list[float] = []
    for step in range(steps):
        result = stepper.gradients(plan.batch(start + step))
        if not math.isfinite(result.loss + result.grad_norm):
            break
        stepper.apply(step, schedule.share(step), result.grad_norm)
        losses.append(result.loss)
    return stepper, losses


_begun: dict[tuple[int, int, int], dict[str, Tensor]] = {}


def _begin(spec: Spec, model: Transformer, text: Text) -> None:
    """Give a model the weights of a finished first run, made once for all that start from it."""
    key = (spec.depth, spec.seed, spec.first)
    if key not in _begun:
        given = {"max_steps": spec.first, "batch_tokens": spec.rows * SEQ_LEN, **THEN}
        config = settings_for(model.config, TrainConfig.model_validate(given))
        _steps(spec, model, config, text, 0)[0].finished()
        _begun[key] = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(_begun[key])
    model.train()


def known(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file by their spec's key; a line that a kill cut short is left out."""
    names = [f.name for f in fields(Spec)]
    rows = {}
    for line in out.read_text(encoding="utf-8").splitlines() if out.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[Spec(**{name: row[name] for name in names if name in row}).key] = row
    return rows


def run_all(
    specs: Iterable[Spec],
    text: Text,
    out: Path,
    seconds: float,
    change: Callable[[Spec, Transformer], None] | None = None,
) -> bool:
    """Run what is missing, one row after the other, for at most so many seconds.

    Returns:
        Whether nothing is missing any more.
    """
    begin, wanted = time.monotonic(), list(specs)
    for number, spec in enumerate(wanted):
        if spec.key in known(out):
            continue
        if time.monotonic() - begin > seconds:
            print(f"{number} of {len(wanted)} done; the same command goes on")
            return False
        row = run(spec, text, change)
        with open(out, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row) + "\n")
        changes = {**row["train"], **row["model"]}
        print(
            f"{number + 1}/{len(wanted)} {spec.series} d{spec.depth} s{spec.seed} {spec.variant} {changes}: {row['bpb']}",
            flush=True,
        )
    return True


def arguments(description: str | None, out: str) -> argparse.ArgumentParser:
    """Options that all series have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("demo"), help="a project whose tokens are made")
    parser.add_argument("--out", type=Path, default=Path(out), help="rows so far; appended to")
    parser.add_argument("--seconds", type=float, default=600, help="begin no run after this long")
    parser.add_argument("--series", nargs="*", help="only these")
    return parser
