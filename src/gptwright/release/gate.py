"""The gate: what a model must hold before it may become production. Facts in, a verdict with reasons out; nothing is changed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.evaluate.scores import BitsPerByte, compare_bpb
from gptwright.evaluate.statistics import Comparison
from gptwright.release.config import GatePolicy
from gptwright.release.files import pickled

_REQUIRED = ("config.json", "tokenizer.json")
_FEW = 2


@dataclass(frozen=True)
class Check:
    """One condition and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer. ``against`` is the production model it was compared with, or None when there was none."""

    passed: bool
    checks: tuple[Check, ...]
    against: str | None
    comparison: Comparison | None = None

    @property
    def reasons(self) -> list[str]:
        """Why not; empty when it passed."""
        return [f"{check.name}: {check.found}" for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """For ``Release.verdict``."""
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "reasons": self.reasons,
            "against": self.against,
            "comparison": self.comparison.to_json() if self.comparison else None,
        }


def gate(
    directory: Path,
    policy: GatePolicy,
    result: BitsPerByte | None,
    production: tuple[str, BitsPerByte | None] | None = None,
    extra: Sequence[Check] = (),
) -> Verdict:
    """Judge a model.

    Args:
        directory: the model's directory.
        policy: of [release.gate].
        result: its held-out bits per byte, per document.
        production: id of the present production model and its result; None when nothing is in production.
        extra: further checks that the caller made (own questions, red team).
    """
    checks = [_files(directory), _measured(result)]
    if policy.require_cards:
        checks.append(_card(directory))
    if policy.max_bits_per_byte is not None and result is not None:
        low_enough = result.value <= policy.max_bits_per_byte
        checks.append(
            Check("bits per byte", low_enough, f"{result.value:.4f}, at most {policy.max_bits_per_byte:g} is allowed")
        )
    comparison = None
    if production is not None and result is not None:
        check, comparison = _not_worse(result, *production, policy.margin)
        checks.append(check)
    checks += extra
    return Verdict(
        all(check.passed for check in checks), tuple(checks), production[0] if production else None, comparison
    )


def _files(directory: Path) -> Check:
    from gptwright.model.io import read_config  # brings torch, which listing releases must not wait for

    lacking = [name for name in _REQUIRED if not (directory / name).is_file()]
    if not list(directory.glob("*.safetensors")):
        lacking.append("model.safetensors")
    if lacking:
        return Check("files", False, f"{', '.join(lacking)} missing in {directory.name}")
    if unsafe := pickled(directory):
        return Check("files", False, f"{', '.join(unsafe)} may run code when opened")
    try:
        read_config(directory)
    except UserError as error:
        return Check("files", False, str(error))
    return Check("files", True, "complete")


def _measured(result: BitsPerByte | None) -> Check:
    if result is None:
        return Check("evaluation", False, "no held-out result for exactly these weights; run: gptwright evaluate")
    return Check("evaluation", True, f"{result.value:.4f} bits/byte on {len(result.uids)} held-out documents")


def _card(directory: Path) -> Check:
    card = directory / "README.md"
    if not card.is_file() or not card.read_text(encoding="utf-8", errors="replace").strip():
        return Check("model card", False, "no README.md in the model's directory; run: gptwright compliance")
    return Check("model card", True, "present")


def _not_worse(
    result: BitsPerByte, name: str, other: BitsPerByte | None, margin: float
) -> tuple[Check, Comparison | None]:
    """Non-inferiority: the 95 % one-sided upper bound of the difference stays under the margin, on documents that both were scored on."""
    title = f"not worse than {name}"
    if other is None:
        return Check(title, False, f"{name} has no held-out result; run: gptwright evaluate {name}"), None
    sizes = dict(zip(other.uids, other.bytes.tolist(), strict=True))
    shared = [uid for uid, size in zip(result.uids, result.bytes.tolist(), strict=True) if sizes.get(uid) == size]
    if len(shared) < _FEW:
        found = f"only {len(shared)} held-out documents were scored for both; run: gptwright evaluate {name}, or give more held-out text"
        return Check(title, False, found), None
    mine, theirs = result.only(shared), other.only(shared)
    # Sort both by document, so that pairs match whatever order each was scored in.
    comparison = compare_bpb(_sorted(mine), _sorted(theirs))
    passed = comparison.upper_one_sided <= margin
    found = (
        f"{comparison.delta:+.4f} bits/byte (at most {comparison.upper_one_sided:+.4f} with 95 % confidence; {margin:+g} is allowed)"
        f" on {comparison.n} documents"
    )
    if not passed and comparison.mde > margin:
        found += f"; so few documents only show differences of {comparison.mde:.3f} or more"
    return Check(title, passed, found), comparison


def _sorted(result: BitsPerByte) -> BitsPerByte:
    order = sorted(range(len(result.uids)), key=result.uids.__getitem__)
    uids = tuple(result.uids[i] for i in order)
    return BitsPerByte(uids, result.bits[order], result.bytes[order], result.tokens, result.skipped)
