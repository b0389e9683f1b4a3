"""Which size-based rules a model comes near: its training FLOP from the run record against the lines of the law. Not legal advice."""

from dataclasses import dataclass
from typing import Any

from gptwright.core.ledger import Artifact, Ledger

# Dated rules. Sources: Commission guidelines on general-purpose AI models of 18 July 2025 (indicative criterion, and one third
# for those who modify a model of others); Regulation (EU) 2024/1689 Art. 50 and Art. 51(2); Cal. Civ. Code §3111 (AB 2013).
RULES_DATE = "2026-11-24"
GPAI_FLOP = 1e23
SYSTEMIC_FLOP = 1e25
MODIFIER_SHARE = 1 / 3
NOTICE = f"Rules as of {RULES_DATE}. Computed from the run record; not legal advice."


@dataclass(frozen=True)
class RunCompute:
    """Training compute of one run and the numbers it was multiplied from."""

    run_id: str
    stage: str
    tokens: int
    flops_per_token: float
    flop: float


@dataclass(frozen=True)
class Applicability:
    """The model's training FLOP beside the lines, and one sentence for each rule."""

    model_id: str
    flop: float
    runs: tuple[RunCompute, ...]
    not_recorded: tuple[str, ...]
    imported_base: str | None
    statements: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object for reports."""
        return {
            "model_id": self.model_id,
            "training_flop": self.flop,
            "runs": [vars(run) for run in self.runs],
            "not_recorded": list(self.not_recorded),
            "imported_base": self.imported_base,
            "lines": {"general_purpose": GPAI_FLOP, "systemic_risk": SYSTEMIC_FLOP, "modifier_share": MODIFIER_SHARE},
            "statements": list(self.statements),
            "notice": NOTICE,
        }


def training_facts(ledger: Ledger, artifact: Artifact) -> dict[str, Any]:
    """What the ledger knows of the run that made an artifact: the run's own record, and above it the artifact's."""
    run = ledger.run(artifact.run_id) if artifact.run_id else None
    return {**(run.meta if run else {}), **artifact.meta}


def original(ledger: Ledger, model: Artifact) -> Artifact:
    """The model itself where a stage only passed it through: same files, same hash, and the run that made them."""
    if not model.meta.get("passed_through"):
        return model
    same = (a for a in ledger.artifacts("model") if a.hash == model.hash and not a.meta.get("passed_through"))
    return next(same, model)


def applicability(ledger: Ledger, model: Artifact, *, base_flop: float | None = None) -> Applicability:
    """Sum the training compute of a model and all models it descends from.

    Args:
        ledger: of the project.
        model: the model's artifact.
        base_flop: training compute of an imported base model, if its makers publish it. FLOP.
    """
    runs: list[RunCompute] = []
    missing: list[str] = []
    imported = None
    model = original(ledger, model)
    for artifact in [*(a for a in ledger.ancestors(model.id) if not a.meta.get("passed_through")), model]:
        if artifact.kind != "model":
            continue
        if artifact.stage == "import" or artifact.meta.get("imported"):
            imported = artifact.name
            continue
        facts = training_facts(ledger, artifact)
        tokens, per_s, flops_s = facts.get("tokens"), facts.get("tokens_per_s"), facts.get("flops_per_s")
        if not (tokens and per_s and flops_s):
            missing.append(artifact.name)
            continue
        each = float(flops_s) / float(per_s)
        runs.append(RunCompute(artifact.run_id or "", artifact.stage, int(tokens), each, int(tokens) * each))
    flop = sum(run.flop for run in runs)
    return Applicability(
        model.name, flop, tuple(runs), tuple(missing), imported, tuple(_statements(flop, missing, imported, base_flop))
    )


def _statements(flop: float, missing: list[str], imported: str | None, base_flop: float | None) -> list[str]:
    said = []
    if missing:
        said.append(f"The compute of {', '.join(missing)} is not in the record, so the sum is too low.")
    if flop > 0 and flop < GPAI_FLOP:
        said.append(
            f"EU general-purpose models (Art. 53): {flop:.3g} FLOP is below the indicative criterion of {GPAI_FLOP:.0e}"
            f" by a factor of {GPAI_FLOP / flop:,.0f}."
        )
    elif flop >= GPAI_FLOP:
        said.append(
            f"EU general-purpose models (Art. 53): {flop:.3g} FLOP reaches the indicative criterion of {GPAI_FLOP:.0e}; its duties may apply."
        )
    if flop >= SYSTEMIC_FLOP:
        said.append(f"EU systemic risk (Art. 51(2)): presumed from {SYSTEMIC_FLOP:.0e} FLOP.")
    if imported is not None:
        if base_flop:
            reached = flop > MODIFIER_SHARE * base_flop
            said.append(
                f"Changing a model of others ({imported}): {flop:.3g} FLOP is {flop / base_flop:.2g} of the original's {base_flop:.3g};"
                f" the guidelines speak of a new provider above one third: {'reached' if reached else 'not reached'}."
            )
        else:
            said.append(
                f"Changing a model of others ({imported}): a new provider is one who uses more than a third of the original's compute,"
                " which is not recorded here."
            )
    said += [
        "EU transparency (Art. 50): applies whatever the size if people in the EU talk to the model; say that it is an AI, and mark what it writes.",
        "California AB 2013: applies whatever the size if the model is offered to the public there; publish the summary of the training data.",
    ]
    return said
