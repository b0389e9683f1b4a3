"""API keys: made once and shown once; the control store keeps their SHA-256 only.

A key is 256 random bits, so a slow hash would buy nothing.
"""

import datetime
import hashlib
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from gptwright.core.control import ApiKey, ControlStore, Usage, utc_now
from gptwright.core.errors import UserError

_PREFIX = "gw-"


@dataclass(frozen=True)
class KeyInfo:
    """What may be shown of a key.

    Attributes:
        prefix: its first characters, to recognise it by.
        state: ``active``, ``expired`` or ``revoked``.
    """

    id: int
    name: str
    prefix: str
    created_at: datetime.datetime
    expires_at: datetime.datetime | None
    state: str


def create_key(
    control: ControlStore, name: str, *, scopes: tuple[str, ...] = ("api",), lifetime_s: float | None = None
) -> tuple[str, KeyInfo]:
    """Make a key.

    Args:
        control: where its hash is kept.
        name: for whom or what; not empty.
        scopes: what it may do.
        lifetime_s: seconds until it expires; None is never.

    Returns:
        The key itself, which cannot be shown again, and what is known of it.
    """
    if not name.strip():
        raise UserError("a key needs a name", fix="Say for whom or what it is")
    key = _PREFIX + secrets.token_urlsafe(32)
    expires = utc_now() + datetime.timedelta(seconds=lifetime_s) if lifetime_s is not None else None
    with control.session() as session:
        row = ApiKey(
            name=name.strip(),
            hash=hash_key(key),
            prefix=key[:8],
            scopes=list(scopes),
            expires_at=expires,
            revoked_at=None,
        )
        session.add(row)
        session.flush()
        return key, _info(row)


def list_keys(control: ControlStore) -> list[KeyInfo]:
    """All keys ever made, oldest first."""
    with control.session() as session:
        return [_info(row) for row in session.scalars(sa.select(ApiKey).order_by(ApiKey.id))]


def revoke_key(control: ControlStore, which: str) -> KeyInfo:
    """Revoke a key at once.

    Args:
        control: the store.
        which: its id, name, prefix, or the key itself.

    Raises:
        UserError: no such active key, or several of that name.
    """
    with control.session() as session:
        rows = session.scalars(sa.select(ApiKey).where(ApiKey.revoked_at.is_(None))).all()
        found = [row for row in rows if which in (str(row.id), row.name, row.prefix) or row.hash == hash_key(which)]
        if len(found) != 1:
            what = "no active key" if not found else f"{len(found)} active keys"
            raise UserError(f"{what} with this id, name or prefix", where=which, fix="See: gptwright keys list")
        found[0].revoked_at = utc_now()
        return _info(found[0])


def find_key(control: ControlStore, key: str) -> int | None:
    """The id of an active key, or None. The look-up is by hash, so its time says nothing about other keys."""
    with control.session() as session:
        row = session.scalar(sa.select(ApiKey).where(ApiKey.hash == hash_key(key)))
        return row.id if row is not None and _state(row) == "active" else None


def has_active_key(control: ControlStore) -> bool:
    """Whether anyone could get in."""
    return any(info.state == "active" for info in list_keys(control))


def record_usage(control: ControlStore, key_id: int | None, model: str, prompt: int, completion: int) -> None:
    """Count the tokens of one answered request."""
    with control.session() as session:
        session.add(Usage(key_id=key_id, model=model, prompt_tokens=prompt, completion_tokens=completion))


def hash_key(key: str) -> str:
    """SHA-256 of a key, hex: the format that other servers use for this too."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _state(row: ApiKey) -> str:
    if row.revoked_at is not None:
        return "revoked"
    expires = row.expires_at
    if expires is not None and expires.tzinfo is None:  # SQLite forgets the zone; all our times are UTC
        expires = expires.replace(tzinfo=datetime.UTC)
    return "expired" if expires is not None and expires <= utc_now() else "active"


def _info(row: ApiKey) -> KeyInfo:
    return KeyInfo(row.id, row.name, row.prefix, row.created_at, row.expires_at, _state(row))
