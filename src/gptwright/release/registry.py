"""Which model answers: releases that never change, and aliases that move in one transaction and can move back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from gptwright.core.control import Alias, AliasHistory, ControlStore, Release, utc_now
from gptwright.core.errors import Refused, UserError
from gptwright.core.ledger import Ledger
from gptwright.evaluate.record import latest_bpb
from gptwright.release.config import GatePolicy
from gptwright.release.files import fingerprint, verify
from gptwright.release.gate import Check, Verdict, gate

PRODUCTION = "production"
_ROLLBACK = "rollback"  # begins the reason of every move back, which is how the history is read as a stack


@dataclass(frozen=True)
class Move:
    """An alias before and after."""

    alias: str
    model_id: str
    former: str | None
    reason: str


class Registry:
    """Releases and aliases of a project.

    Args:
        control: the control store.
        root: the project; paths of releases are relative to it.
    """

    def __init__(self, control: ControlStore, root: Path) -> None:
        self.control, self.root = control, root

    def candidate(self, model_id: str, model_hash: str, path: str, verdict: Verdict) -> Release:
        """Register a model with the gate's verdict. Registering it again renews the verdict and nothing else.

        Raises:
            Refused: the id stands for other weights, or the directory's files changed since.
        """
        directory = self.root / path
        files = fingerprint(directory)
        with self.control.session() as session:
            known = _find(session, model_id)
            if known is None:
                known = Release(
                    model_id=model_id, model_hash=model_hash, path=path, verdict={**verdict.to_json(), "files": files}
                )
                session.add(known)
            else:
                if known.model_hash != model_hash:
                    raise Refused(
                        f"{model_id} is registered with other weights",
                        fix="A release never changes; give the new model its own id",
                    )
                verify(directory, known.verdict["files"], model_id)
                known.verdict = {**verdict.to_json(), "files": known.verdict["files"]}
            session.flush()
            return known

    def gate(
        self, model_id: str, model_hash: str, path: str, policy: GatePolicy, ledger: Ledger, extra: Sequence[Check] = ()
    ) -> Verdict:
        """Judge a model against the present production, by what the ledger holds of both."""
        current = self.current(PRODUCTION)
        production = None
        if current is not None and current.model_id != model_id and self._there(current):
            production = (current.model_id, latest_bpb(ledger, current.model_id, current.model_hash))
        return gate(self.root / path, policy, latest_bpb(ledger, model_id, model_hash), production, extra)

    def promote(self, model_id: str, override_reason: str | None = None, *, alias: str = PRODUCTION) -> Move:
        """Point an alias to a release, in one transaction.

        Args:
            model_id: a candidate.
            override_reason: promotes in spite of the gate; it is kept in the history. Changed files are refused all the same.
            alias: which name to move.

        Raises:
            UserError: no such candidate.
            Refused: the gate failed, production moved since it judged, or a file of the model changed.
        """
        release = self.release(model_id)
        verify(
            self.root / release.path, release.verdict["files"], model_id
        )  # minutes for large models, so before the lock
        with self.control.session() as session:
            row, former = _locked(session, alias)
            release = _known(session, model_id)
            if former is not None and former.id == release.id:
                return Move(alias, model_id, former.model_id, "already there")
            if override_reason is None:
                self._allow(release, former if former is not None and self._there(former) else None, alias)
            reason = "gate passed" if override_reason is None else f"override: {override_reason}"
            _point(session, row, alias, release, reason)
            return Move(alias, model_id, former.model_id if former else None, reason)

    def rollback(self, reason: str = "", *, alias: str = PRODUCTION) -> Move:
        """Point an alias to what it pointed to before; twice goes two steps back.

        Raises:
            UserError: the alias does not exist or has no former target.
            Refused: a file of the former model changed.
        """
        target = self._former(alias)
        verify(self.root / target.path, target.verdict["files"], target.model_id)
        with self.control.session() as session:
            row, current = _locked(session, alias)
            stack = _stack(session, alias)
            if len(stack) < 2 or stack[-2] != target.id or current is None:
                raise Refused(f"{alias} moved at the same moment", fix="Look at: gptwright release list, and try again")
            text = f"{_ROLLBACK}: {reason}" if reason else _ROLLBACK
            _point(session, row, alias, target, text)
            return Move(alias, target.model_id, current.model_id, text)

    def current(self, alias: str) -> Release | None:
        """The release an alias points to."""
        with self.control.session() as session:
            return session.scalar(
                sa.select(Release).join(Alias, Alias.release_id == Release.id).where(Alias.name == alias)
            )

    def release(self, model_id: str) -> Release:
        """A release by id.

        Raises:
            UserError: there is none.
        """
        with self.control.session() as session:
            return _known(session, model_id)

    def releases(self) -> list[Release]:
        """All releases, oldest first."""
        with self.control.session() as session:
            return list(session.scalars(sa.select(Release).order_by(Release.id)))

    def aliases(self) -> dict[str, str]:
        """Model id by alias."""
        with self.control.session() as session:
            rows = session.execute(
                sa.select(Alias.name, Release.model_id)
                .join(Release, Alias.release_id == Release.id)
                .order_by(Alias.name)
            )
            return {row.name: row.model_id for row in rows}

    def history(self, alias: str = PRODUCTION) -> list[dict[str, Any]]:
        """Every move of an alias, oldest first."""
        query = sa.select(AliasHistory, Release.model_id).join(Release, AliasHistory.release_id == Release.id)
        with self.control.session() as session:
            rows = session.execute(query.where(AliasHistory.name == alias).order_by(AliasHistory.id))
            return [{"model_id": model_id, "at": row.at.isoformat(), "reason": row.reason} for row, model_id in rows]

    def resolve(self, name: str) -> Path:
        """The model directory of an alias or a release id.

        Raises:
            UserError: it is neither, or its directory is gone.
        """
        release = self.current(name)
        if release is None:
            with self.control.session() as session:
                release = _find(session, name)
        if release is None:
            known = [*self.aliases(), *(r.model_id for r in self.releases())]
            raise UserError(
                f"no release or alias {name}", fix=f"Known are: {', '.join(known)}" if known else "Run: gptwright run"
            )
        directory = self.root / release.path
        if not directory.is_dir():
            raise UserError("the model's directory is gone", where=str(directory), fix="Restore it, or run again")
        return directory

    def _there(self, release: Release) -> bool:
        """Whether its directory still exists: ``work/`` may have been deleted, and what is gone can be compared with nothing."""
        return (self.root / release.path).is_dir()

    def _former(self, alias: str) -> Release:
        with self.control.session() as session:
            stack = _stack(session, alias)
            if len(stack) < 2:
                raise UserError(f"{alias} has no former model to go back to", fix="Look at: gptwright release list")
            return session.get_one(Release, stack[-2])

    @staticmethod
    def _allow(release: Release, former: Release | None, alias: str) -> None:
        verdict = release.verdict
        if not verdict["passed"]:
            reasons = "; ".join(verdict["reasons"])
            raise Refused(
                f"{release.model_id} did not pass the gate: {reasons}", fix="Mend it, or give a reason with --override"
            )
        if alias == PRODUCTION and verdict["against"] != (former.model_id if former else None):
            then, now = verdict["against"] or "nothing", former.model_id if former else "nothing"
            raise Refused(
                f"{release.model_id} was compared with {then}, but production is {now} now",
                fix=f"Run: gptwright release gate {release.model_id}",
            )


def _find(session: Session, model_id: str) -> Release | None:
    return session.scalar(sa.select(Release).where(Release.model_id == model_id))


def _known(session: Session, model_id: str) -> Release:
    release = _find(session, model_id)
    if release is None:
        raise UserError(f"no candidate {model_id}", fix="Look at: gptwright release list")
    return release


def _locked(session: Session, alias: str) -> tuple[Alias | None, Release | None]:
    """The alias, held until the transaction ends (SQLite holds the whole database already), and what it points to."""
    if session.get_bind().dialect.name == "postgresql":
        # A row that does not exist yet cannot be locked; a lock on the name can.
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(alias))))
    row = session.scalar(sa.select(Alias).where(Alias.name == alias).with_for_update())
    return row, session.get(Release, row.release_id) if row else None


def _point(session: Session, row: Alias | None, alias: str, release: Release, reason: str) -> None:
    if row is None:
        session.add(Alias(name=alias, release_id=release.id))
    else:
        row.release_id, row.updated_at = release.id, utc_now()
    session.add(AliasHistory(name=alias, release_id=release.id, reason=reason))


def _stack(session: Session, alias: str) -> list[int]:
    """Targets one may go back through, oldest first: promotions push, rollbacks pop."""
    stack: list[int] = []
    rows = session.scalars(sa.select(AliasHistory).where(AliasHistory.name == alias).order_by(AliasHistory.id))
    for row in rows:
        if row.reason.startswith(_ROLLBACK):
            stack.pop()
        else:
            stack.append(row.release_id)
    return stack
