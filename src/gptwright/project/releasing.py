"""Candidates, the gate's verdict, promotion and rollback, as a project sees them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write
from gptwright.core.ledger import Artifact, Ledger
from gptwright.core.lock import stage_lock
from gptwright.core.stages import StageResult
from gptwright.govern.cards import model_card, write_cards
from gptwright.project.models import locate
from gptwright.project.tuned_on import note_sources
from gptwright.release.gate import Verdict
from gptwright.release.registry import PRODUCTION, Move

if TYPE_CHECKING:
    from gptwright.project.pipeline import Job
    from gptwright.project.project import Project


def release_stage(job: "Job") -> StageResult:
    """Register the model that was evaluated as a candidate. Only ``release promote`` makes it production."""
    model = job.inputs["finetune"]
    if not model.meta.get("passed_through") and (sources := note_sources(job.project, job.ledger)):
        job.ledger.amend(model.id, meta={"sources": sources})  # their terms may be known better by now
    verdict = register(job.project, job.ledger, model)
    lines = [str(job.inputs["evaluate"].meta.get("summary", "")), "", _verdict_text(model.name, verdict)]
    current = job.project.registry.current(PRODUCTION)
    if verdict.passed and (current is None or current.model_id != model.name):
        lines.append(f"  Make it {PRODUCTION} with: gptwright release promote {model.name}")
    return StageResult(
        "release",
        f"release-{model.name}",
        model.path,
        model.hash,
        {"summary": "\n".join(lines), "passed": verdict.passed},
    )


def register(project: "Project", ledger: Ledger, model: Artifact) -> Verdict:
    """Write the model's card, ask the gate, and enter the candidate."""
    card = model_card(project.root, ledger, project.settings.project.intent, model.name)
    with atomic_write(project.root / model.path / "README.md", "w") as file:
        file.write(card)
    verdict = project.registry.gate(model.name, model.hash, model.path, project.settings.release.gate, ledger)
    project.registry.candidate(model.name, model.hash, model.path, verdict)
    return verdict


def gate(project: "Project", name: str) -> tuple[dict[str, Any], str]:
    """Judge a model anew against the present production; measures nothing."""
    ref = locate(project, name)
    with stage_lock(project.work, "release gate"), project.ledger(readonly=False) as ledger:
        model = ledger.find("model", ref.id)
        if model is None:
            raise UserError(f"{ref.id} is not a model of this project", fix=f"Run: gptwright import {name}")
        verdict = register(project, ledger, model)
    return {"model": ref.id, **verdict.to_json()}, _verdict_text(ref.id, verdict)


def _verdict_text(name: str, verdict: Verdict) -> str:
    lines = [f"gate: {name} {'passed' if verdict.passed else 'did not pass'}"]
    lines += [f"  {'ok' if check.passed else 'no'}  {check.name}: {check.found}" for check in verdict.checks]
    return "\n".join(lines)


def promote(project: "Project", name: str | None, override: str | None) -> Move:
    """Point ``production`` to a candidate; without a name, to the newest.

    Raises:
        Refused: the gate failed and no reason was given, or the model's files changed.
    """
    registry = project.registry
    releases = registry.releases()
    if name is None and releases:
        name = releases[-1].model_id
    ref = locate(project, name)
    if ref.id not in {release.model_id for release in registry.releases()}:
        gate(project, ref.id)  # state/ was lost, or is new: what work/ holds is entered again
    return registry.promote(ref.id, override)


def compliance(project: "Project", out: str | None, name: str | None) -> list[str]:
    """Write the model card, dataset card, attribution and applicability into a folder; gives their paths."""
    model_id = locate(project, name).id
    folder = Path(out) if out else project.work / "reports" / "compliance"
    with project.ledger() as ledger:
        return [
            str(path) for path in write_cards(project.root, ledger, folder, project.settings.project.intent, model_id)
        ]
