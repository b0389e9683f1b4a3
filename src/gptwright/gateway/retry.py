"""How long to wait before an upstream is asked again: twice as long each time, or what it says itself."""

import random

from gptwright.gateway.faults import UpstreamError

FIRST_WAIT_S = 0.5
_SPREAD = 0.25  # so that many clients that were refused at once do not come back at once


def wait_before_retry(error: UpstreamError, tried: int, retries: int, longest_s: float) -> float | None:
    """Seconds to wait, or None: it is over.

    Args:
        error: what the last try brought.
        tried: how many retries there were.
        retries: how many there may be.
        longest_s: longest wait; told to wait longer, it is over.
    """
    if not error.again or tried >= retries:
        return None
    if error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= longest_s else None
    return min(longest_s, FIRST_WAIT_S * 2.0**tried * random.uniform(1 - _SPREAD, 1 + _SPREAD))
