"""Who calls: the key and its account, for whom it asks, whether somebody waits. Set by the edge, read by endpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from gptwright.serve.keys import OpenedKey
from gptwright.serve.limits import Account, Limits

BATCH = "gptwright.batch"
"""In a scope, the caller of a batch's request: no client can put it there."""


@dataclass
class Caller:
    """Who calls.

    Attributes:
        key: what was presented; None where no key is asked for.
        account: what it may use and has used.
        background: whether the request is a batch's.
        request_id: of this request.
        trace: the caller's trace, if it sent one (W3C ``traceparent``).
    """

    key: OpenedKey | None
    account: Account
    background: bool = False
    request_id: str = ""
    trace: str | None = None

    @property
    def key_id(self) -> int | None:
        """The key's row, for what it owns."""
        return self.key.id if self.key is not None else None

    @classmethod
    def of(cls, scope: Scope | Mapping[str, Any]) -> "Caller":
        """The caller of a request; nobody in particular where the edge did not look."""
        found = scope.get("state", {}).get("caller")
        return found if isinstance(found, Caller) else cls(None, Account(Limits()))
