"""What a person decided about licences, in the control store; the next build applies it (``review.apply``)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptwright.core.errors import UserError
from gptwright.corpus.licences.names import normalise

if TYPE_CHECKING:
    from gptwright.core.control import ControlStore

UNCLEAR = "LicenseRef-unclear"  # what a person says of a text whose licence was told wrongly and is not known


@dataclass(frozen=True)
class Decision:
    """What a person decided of the texts that a scope names. A later decision goes before an earlier one."""

    source: str
    scope: str  # "*", "host:NAME", "path:GLOB", "found:LICENCE" or "found:none"
    license: str
    attribution: str | None = None


def decide(
    store: "ControlStore", source: str, scope: str, license: str | None, *, attribution: str | None = None,
    note: str | None = None, who: str | None = None,
) -> Decision:  # fmt: skip
    """Keep a person's decision.

    Args:
        store: the control store.
        source: a source's name.
        scope: "*" (the whole source), "host:NAME", "path:GLOB" (of locators), "found:LICENCE" or "found:none" (what was told so far).
        license: SPDX id or expression, or a name of one; None when the texts have no licence that is known.
        attribution: whom to name.
        note: why.
        who: who decided.

    Raises:
        UserError: the licence or the scope is not understood.
    """
    from gptwright.core.control import LicenseReview

    identity = UNCLEAR if license is None else normalise(license)
    if identity is None:
        raise UserError(
            f"{license!r} is no licence that is known", fix="Write an SPDX id such as CC-BY-4.0, or LicenseRef-NAME"
        )
    if scope != "*" and scope.partition(":")[0] not in ("host", "path", "found"):
        raise UserError(f"{scope!r} names no texts", fix="Write *, host:NAME, path:GLOB or found:LICENCE")
    with store.session() as session:
        session.add(
            LicenseReview(source=source, scope=scope, license_id=identity, attribution=attribution, note=note, who=who)
        )
    return Decision(source, scope, identity, attribution)


def decisions(store: "ControlStore") -> list[Decision]:
    """All decisions that hold, one for each source and scope, in the order in which they were made."""
    import sqlalchemy as sa

    from gptwright.core.control import LicenseReview

    with store.session() as session:
        rows = session.scalars(sa.select(LicenseReview).order_by(LicenseReview.id)).all()
        latest = {
            (row.source, row.scope): (row.id, Decision(row.source, row.scope, row.license_id, row.attribution))
            for row in rows
        }
    return [decision for _, decision in sorted(latest.values(), key=lambda one: one[0])]
