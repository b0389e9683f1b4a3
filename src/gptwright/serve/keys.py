"""API keys: made once and shown once; the control store keeps their SHA-256 only.

A key is 256 random bits, so a slow hash would buy nothing.
"""

import datetime
import hashlib
import hmac
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from gptwright.core.control import ApiKey, ControlStore, Usage, utc_now
from gptwright.core.errors import UserError
from gptwright.serve.limits import Limits

_PREFIX = "gw-"
_NO_LIMITS = Limits()

SCOPES = ("api", "chat", "embeddings", "files", "models", "tokenize", "feedback", "moderations", "detect", "metrics")
"""What a key may be for; ``api`` is for all of them."""

_PATHS = {
    "/v1/chat": "chat",
    "/v1/completions": "chat",
    "/v1/responses": "chat",
    "/v1/conversations": "chat",
    "/v1/messages": "chat",
    "/v1/embeddings": "embeddings",
    "/v1/files": "files",
    "/v1/batches": "files",
    "/v1/models": "models",
    "/v1/feedback": "feedback",
    "/v1/moderations": "moderations",
    "/v1/detect": "detect",
    "/tokenize": "tokenize",
    "/detokenize": "tokenize",
    "/tokenizer_info": "tokenize",
    "/metrics": "metrics",
}


def scope_of(path: str) -> str:
    """Which scope a path of the API belongs to."""
    for begin, scope in _PATHS.items():
        if path == begin or path.startswith(begin + "/"):
            return scope
    return "api"


@dataclass(frozen=True)
class OpenedKey:
    """A key that was presented and is active.

    Attributes:
        id: its row.
        scopes: what it may do.
        limits: what it may use.
    """

    id: int
    scopes: frozenset[str]
    limits: Limits

    def may(self, path: str) -> bool:
        """Whether it opens a path of the API."""
        return "api" in self.scopes or path == "/openapi.json" or scope_of(path) in self.scopes


@dataclass(frozen=True)
class KeyInfo:
    """What may be shown of a key.

    Attributes:
        prefix: its first characters, to recognise it by.
        state: ``active``, ``expired`` or ``revoked``.
        scopes: what it may do.
        limits: what it may use.
    """

    id: int
    name: str
    prefix: str
    created_at: datetime.datetime
    expires_at: datetime.datetime | None
    state: str
    scopes: tuple[str, ...] = ("api",)
    limits: Limits = _NO_LIMITS


def create_key(
    control: ControlStore,
    name: str,
    *,
    scopes: tuple[str, ...] = ("api",),
    lifetime_s: float | None = None,
    limits: Limits = _NO_LIMITS,
) -> tuple[str, KeyInfo]:
    """Make a key.

    Args:
        control: where its hash is kept.
        name: for whom or what; not empty.
        scopes: what it may do, of ``SCOPES``.
        lifetime_s: seconds until it expires; None is never.
        limits: what it may use; where there is no limit, ``[serve]``'s holds.

    Returns:
        The key itself, which cannot be shown again, and what is known of it.
    """
    if not name.strip():
        raise UserError("a key needs a name", fix="Say for whom or what it is")
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise UserError(f"no such scope: {', '.join(unknown)}", fix=f"Scopes are: {', '.join(SCOPES)}")
    if not scopes:
        raise UserError("a key needs at least one scope", fix=f"Scopes are: {', '.join(SCOPES)}")
    if any(value is not None and value <= 0 for value in vars(limits).values()):
        raise UserError("a limit must be above 0", fix="Leave it out for no limit")
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
            **vars(limits),
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


def find_key(control: ControlStore, key: str) -> OpenedKey | None:
    """An active key, or None.

    The look-up is by the hash of what was presented, so its time says nothing about the keys that there are; the last word has a
    comparison in constant time, whatever a database does to find a row.
    """
    hashed = hash_key(key)
    with control.session() as session:
        row = session.scalar(sa.select(ApiKey).where(ApiKey.hash == hashed))
        if row is None or not hmac.compare_digest(row.hash, hashed) or _state(row) != "active":
            return None
        return _opened(row)


def key_by_id(control: ControlStore, key_id: int) -> OpenedKey | None:
    """A key that is still active, by its row; for work that goes on after the request."""
    with control.session() as session:
        row = session.get(ApiKey, key_id)
        return _opened(row) if row is not None and _state(row) == "active" else None


def has_active_key(control: ControlStore) -> bool:
    """Whether anyone could get in."""
    return any(info.state == "active" for info in list_keys(control))


def usage_row(key_id: int | None, model: str, prompt: int, completion: int, end_user: str | None = None) -> Usage:
    """The tokens of one answered request.

    Args:
        key_id: whose key it was.
        model: the full id.
        prompt: tokens read.
        completion: tokens generated.
        end_user: for whom the caller asked; only a hash is kept.
    """
    hashed = hash_key(end_user)[:32] if end_user else None
    return Usage(
        key_id=key_id, model=model, at=utc_now(), prompt_tokens=prompt, completion_tokens=completion, end_user=hashed
    )


def record_usage(
    control: ControlStore, key_id: int | None, model: str, prompt: int, completion: int, end_user: str | None = None
) -> None:
    """Write down the tokens of one answered request; see ``usage_row``."""
    with control.session() as session:
        session.add(usage_row(key_id, model, prompt, completion, end_user))


def spent_today(control: ControlStore, key_id: int | None) -> int:
    """Tokens that a key has used since midnight, UTC."""
    midnight = datetime.datetime.combine(utc_now().date(), datetime.time(), datetime.UTC)
    total = sa.func.coalesce(sa.func.sum(Usage.prompt_tokens + Usage.completion_tokens), 0)
    whose = Usage.key_id.is_(None) if key_id is None else Usage.key_id == key_id
    with control.session() as session:
        return int(session.scalar(sa.select(total).where(whose, Usage.at >= midnight)) or 0)


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


def _opened(row: ApiKey) -> OpenedKey:
    return OpenedKey(row.id, frozenset(map(str, row.scopes)), _limits(row))


def _limits(row: ApiKey) -> Limits:
    return Limits(row.requests_per_minute, row.tokens_per_minute, row.max_concurrent, row.tokens_per_day)


def _info(row: ApiKey) -> KeyInfo:
    return KeyInfo(
        row.id,
        row.name,
        row.prefix,
        row.created_at,
        row.expires_at,
        _state(row),
        tuple(map(str, row.scopes)),
        _limits(row),
    )
