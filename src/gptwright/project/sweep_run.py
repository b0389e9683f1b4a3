"""Running ``pretrain --sweep KEY``: small proxies of the project's model on its own tokens, one for each value and seed.

A sweep is a run of the ledger (stage ``sweep``); its folder, ``work/runs/RUN/``, holds sweep.json (what was decided at the start),
trials.jsonl (a line for each proxy that is done), the folders of proxies under way, and sweep.svg. Stopped anywhere, the same call goes on.
"""

import json
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core import launch
from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write, read_json, write_json, writing_error
from gptwright.core.hashing import b2_json
from gptwright.core.lock import stage_lock
from gptwright.core.progress import Bar, progress, say, short, silenced
from gptwright.model.config import ModelConfig
from gptwright.model.cost import params
from gptwright.model.transformer import Transformer
from gptwright.project.heldout import heldout
from gptwright.project.pipeline import Job, recorded, run_id_for
from gptwright.project.planning import choose_shape
from gptwright.project.sweeping import STEPS, Sweep, known_key, values_of
from gptwright.project.training import tokens_ahead, train_config
from gptwright.tokens.plan import BatchPlan
from gptwright.tokens.shards import TokenDataset
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.dial import DIALLED, RATES, dial, proxy_shape, settings_for
from gptwright.train.guard import NotANumber
from gptwright.train.loop import StepInfo, train
from gptwright.train.stepper import Stepper
from gptwright.train.sweep import Trial, Value, Verdict, beyond, verdict
from gptwright.train.sweepplot import shown, svg_curve, text_curve

if TYPE_CHECKING:
    from gptwright.project.project import Project

_MORE = 2  # values beyond the ends, while the lowest loss is at one
_SHARE_OF_TIME = 0.8  # of a time budget; the rest is for starting, measuring, and values beyond the ends
_LEAST_STEPS, _MOST_STEPS = 16, 20_000
_NAMES = ("corpus", "tokenizer", "tokens")


def sweep(
    project: "Project",
    key: str,
    values: str | None = None,
    *,
    max_time: float | None = None,
    max_steps: int | None = None,
    force: bool = False,
) -> tuple[dict[str, Any], str]:
    """Sweep one setting of pretraining on small proxies.

    Args:
        project: whose tokens, model and settings.
        key: ``lr`` or a key of ``[pretrain]``.
        values: such as ``0.5,1,2``; None: the usual ones around the present value. Of ``lr`` factors of all three rates, of the dial's keys
            values of the proxy.
        max_time: of the whole sweep. Seconds.
        max_steps: of each proxy; None and no time: 128.
        force: run again what is finished.

    Returns:
        Data and text of the result.

    Raises:
        UserError: no such key or value, or no held-out text to measure on.
        Interrupted: stopped by Ctrl-C; the same call goes on.
    """
    key = known_key(key)
    if launch.size() > 1:
        raise UserError("a sweep is not distributed", where="--sweep", fix="Run it without torchrun")
    if project.settings.finetune.base != "pretrain":
        raise UserError(
            "this project adapts an open model and does not pretrain",
            where="[finetune] base",
            fix="Sweep in a project that trains from scratch",
        )
    _settings_of_proxies(project, key, values)  # faults of keys and values before anything is made
    project.run(["tokens"])
    with stage_lock(project.work, f"sweep {key}"), project.ledger(readonly=False) as ledger:
        inputs = {name: made for name in _NAMES if (made := ledger.latest_of_stage(name)) is not None}
        settings = project.settings
        asked = [key, values, max_time, max_steps, settings.model.model_dump(), settings.pretrain.model_dump()]
        print_ = b2_json(["sweep", *asked, inputs["tokens"].hash, inputs["tokenizer"].hash])
        done = [run for run in ledger.runs("sweep") if run.state == "done" and run.config.get("key") == print_]
        if done and not force and (folder := project.work / "runs" / done[-1].id / "sweep.json").is_file():
            return _report(project, folder.parent)
        run_id, continues = run_id_for(ledger, "sweep", print_)
        folder = project.work / "runs" / run_id
        for left in (run.id for run in ledger.runs("sweep") if run.id != run_id):
            # Of a sweep that was stopped and never went on: nobody needs these weights, which saw the text as it was then.
            shutil.rmtree(project.work / "runs" / left / "proxies", ignore_errors=True)
        if continues:
            say(f"sweep: continuing {run_id}")
        with recorded(ledger, run_id, "sweep", {"key": print_, "sweep": key}):
            job = Job(project, ledger, run_id, inputs, "sweep")
            _Runs(job, folder, _resolved(job, folder, key, values, max_time, max_steps)).go()
            data, text = _report(project, folder)
            ledger.add_event(run_id, "swept", {k: data[k] for k in ("key", "best", "low", "high", "noise", "settings")})
    return data, text


def _settings_of_proxies(project: "Project", key: str, values: str | None) -> None:
    """Check a sweep's key and values on a stand-in for the model, which costs nothing."""
    shape = ModelConfig(seq_len=int(project.settings.model.seq_len))
    config = settings_for(shape, train_config(project.settings.pretrain))
    trial = Sweep(key, values_of(key, values, config, shape.seq_len), shape, shape, config, config, STEPS)
    for value in trial.values:
        trial.settings(value, 0)


def _resolved(
    job: Job, folder: Path, key: str, values: str | None, max_time: float | None, max_steps: int | None
) -> Sweep:
    """What the sweep tries, decided once and kept in its folder."""
    path = folder / "sweep.json"
    if path.is_file():
        return _read(path)
    project = job.project
    tokenizer = Tokenizer.load(project.work / "tokenizer")
    given = train_config(project.settings.pretrain)
    preset = project.settings.model.preset
    target, chosen = choose_shape(project.settings, tokenizer.padded_vocab_size, job.inputs["tokens"].meta, given)
    unique = float(job.inputs["tokens"].meta["tokens"])
    aim = settings_for(target, chosen, preset, tokens_ahead(target, chosen), unique)
    shape = proxy_shape(target)
    config = _for_proxy(shape, target, given, aim, max_steps or STEPS, unique)
    made = Sweep(key, values_of(key, values, config, shape.seq_len), shape, target, config, aim, max_steps or STEPS)
    if max_steps is None and max_time is not None:
        seconds = _step_seconds(job, made) if max_time > 0 else 1.0
        runs = len(made.values) * len(made.seeds)
        steps = int(_SHARE_OF_TIME * max_time / runs / seconds)
        if steps < _LEAST_STEPS:
            raise UserError(
                f"{max_time:.0f} s are too short for {runs} proxies: {_LEAST_STEPS} steps of each take {_LEAST_STEPS * runs * seconds:.0f} s",
                where="--max-time",
                fix="Give more time, or fewer values",
            )
        made = replace(made, steps=min(steps, _MOST_STEPS))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, _written(made))
    return made


def _for_proxy(
    shape: ModelConfig, target: ModelConfig, given: TrainConfig, aim: TrainConfig, steps: int, unique: float
) -> TrainConfig:
    """Settings of the proxies: the dial at their size and passes; rates that were set by hand for the model keep their factor to the
    dial, and a decay, which no width moves, its value."""
    kept = {
        name: getattr(aim, name)
        for name in TrainConfig.model_fields
        if name not in (*DIALLED, "max_time") and getattr(aim, name) is not None
    }
    batch = aim.batch_tokens if "batch_tokens" in given.model_fields_set else None
    small = dial(shape, aim.optimizer, steps=steps, batch_tokens=batch, unique=unique)
    large = dial(target, aim.optimizer, batch_tokens=aim.batch_tokens)
    for name in DIALLED:
        usual, kept[name] = getattr(large, name), getattr(small, name)
        if name in RATES and name in given.model_fields_set:
            kept[name] *= getattr(given, name) / usual
    if "weight_decay" in given.model_fields_set:
        kept["weight_decay"] = given.weight_decay
    return TrainConfig.model_validate({**kept, "max_steps": steps})


def _step_seconds(job: Job, made: Sweep) -> float:
    """Seconds of a proxy's step, the median of three after a first."""
    config = made.settings(made.present, 0)
    model = Transformer(made.shape)
    model.init_weights(0)
    plan = _plan(job, made.shape, config)
    stepper = Stepper(model, config, machine.choose(config), rows=plan.batch_size)
    timed = []
    for step in range(4):
        begin = time.perf_counter()
        stepper.apply(step, 1.0, stepper.gradients(plan.batch(step)).grad_norm)
        timed.append(time.perf_counter() - begin)
    stepper.finished()
    return sorted(timed[1:])[1]


def _plan(job: Job, shape: ModelConfig, config: TrainConfig) -> BatchPlan:
    dataset = TokenDataset.open(job.project.root / job.inputs["tokens"].path)
    rows = max(1, config.batch_tokens // shape.seq_len)
    return BatchPlan(dataset, shape.seq_len, rows, config.seed, goldfish=config.goldfish)


class _Runs:
    """The proxies of a sweep, in order; each that is done is a line of trials.jsonl and is never run again."""

    def __init__(self, job: Job, folder: Path, made: Sweep) -> None:
        self.job, self.folder, self.made = job, folder, made
        self.trials = read_trials(folder)
        self.tokenizer = Tokenizer.load(job.project.work / "tokenizer")

    def go(self) -> None:
        made = self.made
        say(_what(made))
        total = len(made.values) * len(made.seeds)
        with progress("sweep", total * made.steps, "steps") as bar:
            bar.advance(len(self.trials) * made.steps)
            self._all(list(made.values), bar)
            for _ in range(_MORE):
                further = None if made.key not in _OPEN_ENDS else beyond(verdict(self.trials).means)
                if further is None or (made.key == "batch_tokens" and further % made.shape.seq_len):
                    break
                bar.total = (len({t.value for t in self.trials}) + 1) * len(made.seeds) * made.steps
                self._all([further], bar)

    def _all(self, values: list[Value], bar: Bar) -> None:
        for seed in self.made.seeds:
            for value in values:
                if (value, seed) not in {(trial.value, trial.seed) for trial in self.trials}:
                    self._one(value, seed, bar)

    def _one(self, value: Value, seed: int, bar: Bar) -> None:
        made, job = self.made, self.job
        config = made.settings(value, seed)
        plan = _plan(job, made.shape, config)
        measured = heldout(job, self.tokenizer, made.shape.seq_len, plan.batch_size)
        if measured is None:
            raise UserError("there is no held-out text to measure on", where="corpus", fix="Add more documents")
        name = f"{shown(value)}-s{seed}"
        folder = self.folder / "proxies" / name
        share = made.steps / int(config.max_steps or 1)
        label = f"{made.key} {shown(value)}, seed {seed}"

        def told(info: StepInfo) -> None:
            bar.note(f"{label}: loss {info.loss:.3f}")
            bar.advance(share)

        loss: float | None = None
        try:
            with silenced():
                result = train(made.shape, plan, config, run_dir=folder, heldout=measured, callbacks=[told], label=name)
            loss = result.heldout_bpb
        except NotANumber:  # a rate that is too high is a result of the sweep, not a fault
            say(f"sweep: {label}: the loss is not a number any more; the value counts as diverged")
        trial = Trial(value, seed, loss)
        self.trials.append(trial)
        _append(self.folder / "trials.jsonl", vars(trial))
        job.ledger.add_event(job.run_id, "trial", dict(vars(trial)))
        shutil.rmtree(folder, ignore_errors=True)


# Keys whose lowest loss may lie beyond the values tried; shares and moments have natural ends.
_OPEN_ENDS = ("lr", *DIALLED, "clip_norm")


def read_trials(folder: Path) -> list[Trial]:
    """The proxies that are done; a line cut short by a kill does not count."""
    path, found = folder / "trials.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(Trial(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return found


def _append(path: Path, row: dict[str, Any]) -> None:
    try:
        torn = path.is_file() and not path.read_bytes().endswith(b"\n")
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(("\n" if torn else "") + json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise writing_error(error, path) from error


def _written(made: Sweep) -> dict[str, Any]:
    parts = {name: getattr(made, name).model_dump() for name in ("shape", "target", "config", "aim")}
    return {"key": made.key, "values": made.values, "steps": made.steps, "seeds": made.seeds, **parts}


def _read(path: Path) -> Sweep:
    kept = read_json(path)
    shape, target = (ModelConfig.model_validate(kept[name]) for name in ("shape", "target"))
    config, aim = (TrainConfig.model_validate(kept[name]) for name in ("config", "aim"))
    return Sweep(
        kept["key"], tuple(kept["values"]), shape, target, config, aim, int(kept["steps"]), tuple(kept["seeds"])
    )


def _what(made: Sweep) -> str:
    shape, batch = made.shape, made.config.batch_tokens
    return (
        f"sweep of {made.key} on proxies of {short(params(shape))} parameters ({shape.n_layers} layers, {shape.d_model} wide): "
        f"{made.steps} steps of {batch:,} tokens, seeds {', '.join(map(str, made.seeds))}"
    )


def _report(project: "Project", folder: Path) -> tuple[dict[str, Any], str]:
    """What came out: data, and text with the curve and the lines for gptwright.toml."""
    made, trials = _read(folder / "sweep.json"), read_trials(folder)
    try:
        found = verdict(trials)
    except ValueError as error:
        raise UserError(
            f"nothing to compare: {error}", where=str(folder), fix="Try lower values: --values A,B,C"
        ) from error
    path = folder / "sweep.svg"
    with atomic_write(path, "w") as file:
        file.write(svg_curve(found, trials, made.key, _what(made)))
    settings = made.transferred(found.best)
    svg = path.relative_to(project.root).as_posix()
    data = {
        "run": folder.name,
        "key": made.key,
        "best": found.best,
        "low": found.low,
        "high": found.high,
        "open_low": found.open_low,
        "open_high": found.open_high,
        "noise": found.noise,
        "margin": found.margin,
        "present": made.present,
        "present_within_noise": found.within(made.present),
        "means": [[value, mean if math.isfinite(mean) else None] for value, mean in found.means.items()],
        "trials": [vars(trial) for trial in trials],
        "proxy": {
            "params": params(made.shape),
            "n_layers": made.shape.n_layers,
            "d_model": made.shape.d_model,
            "steps": made.steps,
        },
        "model": {"params": params(made.target), "n_layers": made.target.n_layers, "d_model": made.target.d_model},
        "settings": settings,
        "curve": svg,
    }
    return data, "\n".join(
        [_what(made), "", text_curve(found, trials), "", *_advice(made, found, settings), f"curve: {svg}"]
    )


def _advice(made: Sweep, found: Verdict, settings: dict[str, Value]) -> list[str]:
    unit = "factor of all three rates" if made.key == "lr" else made.key
    line = f"best {unit} for the proxy: {shown(found.best)}"
    if found.low is not None and found.high is not None:
        ends = [
            f"below {shown(found.low)} not tried" if found.open_low else "",
            f"above {shown(found.high)} not tried" if found.open_high else "",
        ]
        line += f"; within noise of it from {shown(found.low)} to {shown(found.high)}"
        if any(ends):
            line += f" ({', '.join(filter(None, ends))})"
    noise = (
        "not known: one seed, or one value"
        if found.noise is None
        else f"{found.noise:.4f} bits/byte a run, margin {found.margin:.4f}"
    )
    lines = [line, f"noise {noise}", ""]
    if made.steps < STEPS:
        lines += [
            f"Caution: proxies of {made.steps} steps are short, and short runs like higher rates than long ones.",
            f"Give --max-steps {STEPS} or more, or more time, before you take the result over.",
            "",
        ]
    if made.key == "weight_decay" and made.config.weight_decay < made.aim.weight_decay:
        lines += [
            "Caution: the model will read the text more often than the proxies do, and what is read again wants more decay:",
            f"the dial gives {shown(made.aim.weight_decay)} to the model. Take another one over only from proxies that read as often.",
            "",
        ]
    if found.within(made.present):
        lines.append(f"The present value ({shown(made.present)}) cannot be told from the best: nothing has to change.")
    target = made.target
    lines.append(
        f"For this project's model ({short(params(target))} parameters, {target.n_layers} layers, {target.d_model} wide), in gptwright.toml:"
    )
    return [*lines, "", "  [pretrain]", *(f"  {name} = {_toml(value)}" for name, value in settings.items()), ""]


def _toml(value: Value) -> str:
    return json.dumps(value) if isinstance(value, str) else shown(value)
