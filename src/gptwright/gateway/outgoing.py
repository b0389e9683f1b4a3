"""What leaves the machine: personal data in messages is masked, or the request is refused, before a provider sees it.

Rules find what has a shape (``corpus.privacy``); names and stories have none, so a text that passed may still identify someone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gptwright.corpus.privacy import KINDS, find_pii, mask_pii
from gptwright.gateway.config import OnPersonalData
from gptwright.gateway.faults import UpstreamError

Messages = Sequence[Mapping[str, Any]]


def may_leave(messages: Messages, action: OnPersonalData, provider: str) -> list[dict[str, Any]]:
    """The messages as they may be sent.

    Args:
        messages: ``role`` and ``content``, maybe ``tool_calls``.
        action: what happens to personal data.
        provider: its name, for the error.

    Raises:
        UpstreamError: 400, there is personal data and the action is to refuse. It names the kinds, never the data.
    """
    if action == "send":
        return [dict(message) for message in messages]
    if action == "mask":
        return [_each_text(message, lambda text: mask_pii(text, KINDS)[0]) for message in messages]
    for index, message in enumerate(messages):
        found: Counter[str] = Counter()

        def look(text: str, found: Counter[str] = found) -> str:
            found.update(span.kind for span in find_pii(text, KINDS))
            return text

        _each_text(message, look)
        if found:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(found.items()))
            raise UpstreamError(
                f"personal data must not be sent there, and there is some: {kinds}",
                provider=provider,
                status=400,
                code="personal_data",
                param=f"messages[{index}].content",
                fix="Leave it out, or ask a model that runs here",
            )
    return [dict(message) for message in messages]


def _each_text(message: Mapping[str, Any], change: Any) -> dict[str, Any]:
    out = dict(message)
    if isinstance(out.get("content"), str):
        out["content"] = change(out["content"])
    if out.get("tool_calls"):
        out["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": change(call["function"]["arguments"])}}
            for call in out["tool_calls"]
        ]
    return out
