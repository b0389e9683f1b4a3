"""When the next model of a route is asked: the one before is full, away or unsure. Decisions only; ``serve.routing`` carries them out."""

import math
from collections.abc import Sequence

from gptwright.gateway.config import RouteConfig

PASSED_ON = frozenset(
    {
        "server_busy",
        "model_not_ready",
        "model_not_found",
        "context_length_exceeded",
        "unsupported_parameter",
        "upstream_error",
        "upstream_timeout",
        "upstream_busy",
        "upstream_key",
        "upstream_broke_off",
        "spending_limit_reached",
        "price_unknown",
        "personal_data",
    }
)
"""Codes of refusals that another model may not share. A key's own limits and a broken request are not among them."""


def passes_on(code: str | None) -> bool:
    """Whether a refusal leads to the next model."""
    return code in PASSED_ON


def is_unsure(logprobs: Sequence[float], route: RouteConfig) -> bool:
    """Whether an answer that begins with such tokens is unsure: their mean probability (geometric) is below the route's limit.

    Args:
        logprobs: of the tokens so far, under the model itself. Nats.
        route: its section.
    """
    if route.unsure_below is None or not logprobs:
        return False
    return math.exp(sum(logprobs) / len(logprobs)) < route.unsure_below
