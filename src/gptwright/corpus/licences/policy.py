"""Whether a corpus may be used as someone wants to: its licences against a list of allowed ones and against what a use asks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gptwright.core.errors import Refused, UserError
from gptwright.corpus.licences.expressions import accepted_by, alternatives, choose
from gptwright.corpus.licences.names import normalise
from gptwright.corpus.licences.table import LicenceRow


@dataclass(frozen=True)
class Refusal:
    """Text of one source under one licence that may not be used, and why."""

    license: str | None
    source: str
    documents: int
    bytes: int
    reason: str

    def __str__(self) -> str:
        amount = f"{self.documents:,} document{'s' * (self.documents != 1)}, {self.bytes:,} bytes"
        return f"{self.license or 'no known licence'} in source {self.source} ({amount}): {self.reason}"


@dataclass(frozen=True)
class Judgement:
    """A corpus under a policy. ``chosen``: for each licence with a choice (OR) the one that is taken."""

    chosen: dict[str, str]
    refused: tuple[Refusal, ...]
    bytes: int


def parse_allow(text: str | Iterable[str]) -> frozenset[str]:
    """The ids of a list such as "MIT, Apache-2.0, CC-BY-4.0".

    Raises:
        UserError: a name is not understood, or is an expression.
    """
    names = [name.strip() for name in (text.split(",") if isinstance(text, str) else text) if name.strip()]
    found = set()
    for name in names:
        identity = normalise(name)
        choices = alternatives(identity)
        if identity is None or len(choices) != 1 or len(choices[0]) != 1:
            raise UserError(
                f"{name!r} is not the name of one licence",
                where="--allow",
                fix="Write SPDX ids: MIT,Apache-2.0,CC-BY-4.0",
            )
        found.add(identity)
    if not found:
        raise UserError("no licence is allowed", where="--allow", fix="Write SPDX ids: MIT,Apache-2.0,CC-BY-4.0")
    return frozenset(found)


def judge(
    rows: Sequence[LicenceRow],
    *,
    allow: frozenset[str] | None = None,
    permits: Callable[[str], bool] | None = None,
    use: str = "this use",
) -> Judgement:
    """Hold a corpus's licences against what is allowed; nothing is raised here.

    Args:
        rows: of ``table.licence_table``.
        allow: ids that may be used; None allows all.
        permits: says of one licence id whether it permits the use; None asks nothing. What it does not know it must not permit.
        use: what the use is called in reasons, such as "commercial use".

    Returns:
        What is refused, largest first. Text without a known licence is refused under either rule.
    """
    allowed = accepted_by(allow) if allow is not None else None

    def accepts(identity: str) -> bool:
        return (allowed is None or allowed(identity)) and (permits is None or permits(identity))

    chosen: dict[str, str] = {}
    refused: list[Refusal] = []
    for row in rows:
        if allowed is None and permits is None:
            continue
        if row.license is None or not alternatives(row.license):
            reason = "nothing says that it may be used" if row.license is None else "its terms are not known"
            refused.append(Refusal(row.license, row.source, row.documents, row.bytes, reason))
        elif (taken := choose(row.license, accepts)) is not None:
            if taken != normalise(row.license):
                chosen[row.license] = taken
        else:
            reason = _reason(row.license, allowed, permits, use)
            refused.append(Refusal(row.license, row.source, row.documents, row.bytes, reason))
    refused.sort(key=lambda one: (-one.bytes, one.source, one.license or ""))
    return Judgement(chosen, tuple(refused), sum(row.bytes for row in rows))


def _reason(
    license: str, allowed: Callable[[str], bool] | None, permits: Callable[[str], bool] | None, use: str
) -> str:
    listed = allowed is None or choose(license, allowed) is not None
    usable = permits is None or choose(license, permits) is not None
    if not usable:
        return f"it does not permit {use}, or its terms are not known"
    return "it is not in the list of allowed licences" if not listed else f"what is allowed of it does not permit {use}"


def enforce(judgement: Judgement, where: str = "licences") -> None:
    """Refuse a corpus that does not fit.

    Raises:
        Refused: names each licence and source with its documents and bytes, the largest first.
    """
    if not judgement.refused:
        return
    amount = sum(one.bytes for one in judgement.refused)
    shown = "; ".join(str(one) for one in judgement.refused[:10])
    more = f"; and {len(judgement.refused) - 10} more" if len(judgement.refused) > 10 else ""
    share = amount / max(judgement.bytes, 1)
    names = ", ".join(dict.fromkeys(one.source for one in judgement.refused[:10]))
    raise Refused(
        f"{amount:,} of {judgement.bytes:,} bytes ({share:.1%}) may not be used: {shown}{more}",
        where=where,
        fix=f"Remove these texts from {names}, or say under which licence you hold them: gptwright data licenses review",
    )
