"""A conversation that is longer than a row: which of its tokens are kept, so that answers stay whole where they can."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Example:
    """A stretch of a conversation.

    Args:
        start: first token.
        length: tokens.
        prefix: tokens of the conversation's beginning (its system message) that stand before the stretch.
        cut: what had to be cut inside a turn, if anything.
    """

    start: int
    length: int
    prefix: int = 0
    cut: Literal["answer", "prompt"] | None = None


def fit_conversation(
    ids: npt.NDArray[np.int64],
    learn: npt.NDArray[np.bool_],
    limit: int,
    turn_id: int | None,
    system_header: Sequence[int],
    split: bool,
) -> list[Example]:
    """Stretches of at most ``limit`` tokens, prefix included, each with at least one target behind its first token.

    The beginning is kept through the last whole answer that fits; with ``split`` the rest follows in further stretches.
    Where not even one answer fits: an answer that begins within the limit is cut at its end (its end of turn is then not
    taught); a prompt that alone exceeds it loses its beginning, and half the room goes to the answer.

    Args:
        ids: (n,) the conversation, n > limit.
        learn: (n,) which tokens are targets; at least one, and not the first.
        limit: at least 8.
        turn_id: the token that opens a turn, if the format has one.
        system_header: tokens after turn_id that mark a system message.
        split: go on after the first stretch.
    """
    n = len(ids)
    opens = np.flatnonzero(ids == turn_id) if turn_id is not None else np.empty(0, dtype=np.int64)
    edges = np.diff(np.concatenate(([0], learn.astype(np.int8), [0])))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    system = _system_length(ids, opens, system_header)
    found: list[Example] = []
    at = 0
    while at < n and (following := begins[begins >= at]).size:
        prefix = system if at > 0 and system <= limit // 2 else 0
        room = limit - prefix
        whole = ends[(ends > at) & (ends <= at + room)]
        first = int(following[0])
        if n - at <= room:
            found.append(Example(at, n - at, prefix))
            break
        if whole.size:
            end = _next_turn(int(whole[-1]), opens, n)
            stop = min(end, at + room)
            found.append(Example(at, stop - at if end <= at + room else int(whole[-1]) - at, prefix))
        elif first < at + room:
            found.append(Example(at, room, prefix, "answer"))
            end = _next_turn(int(ends[ends > first][0]), opens, n)
        else:
            start = first - room // 2
            stop = int(ends[ends > first][0])
            found.append(Example(start, min(room, stop - start), prefix, "prompt"))
            end = _next_turn(stop, opens, n)
        if not split:
            break
        at = end
    return found


def _next_turn(position: int, opens: npt.NDArray[np.int64], n: int) -> int:
    """Where the turn after a position opens; the position itself in a format without opening tokens."""
    if not opens.size:
        return position
    later = opens[opens >= position]
    return int(later[0]) if later.size else n


def _system_length(ids: npt.NDArray[np.int64], opens: npt.NDArray[np.int64], header: Sequence[int]) -> int:
    if opens.size < 2 or opens[0] != 0 or ids[1 : 1 + len(header)].tolist() != list(header):
        return 0
    return int(opens[1])
