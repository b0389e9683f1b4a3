"""Running stages: only stale ones, in order, each recorded in the ledger, each continued where it was stopped."""

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gptwright.core import launch
from gptwright.core.errors import Interrupted, UserError
from gptwright.core.files import remove_leftovers
from gptwright.core.ledger import Artifact, Ledger
from gptwright.core.lock import stage_lock
from gptwright.core.progress import clock, say, silenced
from gptwright.core.stages import Stage, Verdict, judge

if TYPE_CHECKING:
    from gptwright.project.project import Project
    from gptwright.train.distributed import World

_TOGETHER = ("pretrain", "finetune")  # stages that several processes do together; the main one does the others


@dataclass(frozen=True)
class Job:
    """What a stage's function is given."""

    project: "Project"
    ledger: Ledger
    run_id: str
    inputs: dict[str, Artifact]
    stage: str


@dataclass
class RunReport:
    """What a run did: a line a stage, and the report of the last evaluation."""

    ran: list[dict[str, Any]] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    would_run: list[dict[str, Any]] = field(default_factory=list)
    summary: str = ""


def run(project: "Project", targets: Sequence[str], *, dry_run: bool, force: bool) -> RunReport:
    """See ``Project.run``. Of several processes the main one runs stages, and the others join it in training."""
    if launch.size() == 1 or dry_run:
        return _run(project, targets, dry_run=dry_run, force=force)
    from gptwright.train.distributed import launched

    world = launched()
    if not world.is_main:
        return _follow(project, world)
    try:
        return _run(project, targets, dry_run=False, force=force, world=world)
    finally:
        world.tell(None)
        world.leave()


def _follow(project: "Project", world: "World") -> RunReport:
    """What all processes but the main one do: nothing, until it comes to a stage that takes all."""
    from gptwright.project.stages import FUNCTIONS

    with silenced():
        while (told := world.hear()) is not None:
            with (
                project.ledger() as kept,
                kept.copied() as ledger,
            ):  # the main process's entries are the ones that count
                inputs = {name: found for name in told["inputs"] if (found := ledger.latest_of_stage(name))}
                _connect(project, world, told["stage"])
                FUNCTIONS[told["stage"]](Job(project, ledger, told["run"], inputs, told["stage"]))
    world.leave()
    return RunReport()


def _connect(project: "Project", world: "World", stage: str) -> None:
    section = getattr(project.settings, stage)
    world.connect(section.device, section.peer_timeout)


def _run(
    project: "Project", targets: Sequence[str], *, dry_run: bool, force: bool, world: "World | None" = None
) -> RunReport:
    from gptwright.corpus.sources.kinds import gather_sources
    from gptwright.project.stages import FUNCTIONS, stages_of

    stages = stages_of(project)
    wanted = closure(stages, targets)
    report = RunReport()
    if dry_run:
        for verdict in project.status():
            forced = force and (not targets or verdict.stage in targets)
            if verdict.stage in wanted and (verdict.state != "fresh" or forced):
                report.would_run.append({"stage": verdict.stage, "why": list(verdict.reasons) or ["asked for"]})
        return report
    with stage_lock(project.work, f"run {' '.join(targets) or 'all'}"):
        remove_leftovers(project.work)
        if "corpus" in wanted:  # what a source holds decides what is stale, so it is fetched before that is asked
            for name in gather_sources(project.settings.corpus, project.root, again=False):
                say(f"corpus: {name} is gathered")
        with project.ledger(readonly=False) as ledger:
            for position, stage in enumerate(stages):
                if stage.name not in wanted:
                    continue
                verdict = judge(stages[: position + 1], project.config_values(), ledger, project.root)[-1]
                forced = force and (not targets or stage.name in targets)
                if verdict.state == "fresh" and not forced:
                    report.fresh.append(stage.name)
                    continue
                made, seconds = _run_stage(project, ledger, stage, verdict, FUNCTIONS[stage.name], world)
                report.ran.append(
                    {"stage": stage.name, "artifact": made.name, "path": made.path, "seconds": round(seconds, 1)}
                )
                report.summary = str(made.meta.get("summary", report.summary))
    return report


def closure(stages: Sequence[Stage], targets: Sequence[str]) -> set[str]:
    """The named stages and all that they need."""
    known = {stage.name: stage for stage in stages}
    if unknown := [name for name in targets if name not in known]:
        raise UserError(f"no such stage: {', '.join(unknown)}", fix=f"Stages are: {' '.join(known)}")
    wanted: set[str] = set()
    queue = list(targets or known)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue.extend(known[name].inputs)
    return wanted


def _run_stage(
    project: "Project", ledger: Ledger, stage: Stage, verdict: Verdict, function: Any, world: "World | None" = None
) -> tuple[Artifact, float]:
    run_id, continues = run_id_for(ledger, stage.name, verdict.key)
    say(f"{stage.name}: {'continuing ' + run_id if continues else '; '.join(verdict.reasons) or 'asked for'}")
    inputs = {name: artifact for name in stage.inputs if (artifact := ledger.latest_of_stage(name))}
    start = time.monotonic()
    with recorded(ledger, run_id, stage.name, {"key": verdict.key, "made_from": verdict.parts}):
        if world is not None and stage.name in _TOGETHER:
            world.tell({"stage": stage.name, "run": run_id, "inputs": list(inputs)})
            _connect(project, world, stage.name)
        result = function(Job(project, ledger, run_id, inputs, stage.name))
        seconds = time.monotonic() - start
        made = ledger.add_artifact(
            result.kind,
            stage=stage.name,
            name=result.name,
            path=result.path,
            hash=result.hash,
            key=verdict.key,
            parents=[*(artifact.id for artifact in inputs.values()), *result.parents],
            meta={**result.meta, "made_from": verdict.parts, "seconds": seconds},
            run_id=run_id,
        )
    say(f"{stage.name}: {made.name} in {clock(seconds)}")
    return made, seconds


@contextlib.contextmanager
def recorded(ledger: Ledger, run_id: str, stage: str, config: dict[str, Any]) -> Iterator[None]:
    """A run in the ledger, from its start to how it ended: done, interrupted or failed."""
    ledger.start_run(run_id, stage, config)
    start = time.monotonic()
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        ledger.finish_run(run_id, "interrupted")
        raise
    except BaseException as error:
        ledger.finish_run(run_id, "failed", {"error": str(error)})
        raise
    ledger.finish_run(run_id, "done", {"seconds": time.monotonic() - start})


def continues(project: "Project", stage: str) -> bool:
    """Whether the stage's last run was stopped and would go on with the present settings."""
    verdict = next((v for v in project.status() if v.stage == stage), None)
    if verdict is None or not project.has_ledger:
        return False
    with project.ledger() as ledger:
        return run_id_for(ledger, stage, verdict.key)[1]


def run_id_for(ledger: Ledger, stage: str, key: str) -> tuple[str, bool]:
    """The id of a stopped run of the same work, which then continues, or a new one."""
    runs = ledger.runs(stage)
    if runs and runs[-1].state != "done" and runs[-1].config.get("key") == key:
        return runs[-1].id, True
    return new_run_id(), False


def new_run_id() -> str:
    """``YYYYMMDD-HHMMSS-<4 hex>``. For people; nothing is ordered by it."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)
