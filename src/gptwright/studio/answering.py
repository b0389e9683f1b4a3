"""Taking in an answer as it streams, until it ends in any way. Knows no page."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptwright.studio.api import ApiFailure, Event
from gptwright.studio.words import Word, packed

log = logging.getLogger("gptwright.studio")

REDRAW_S = 0.05
"""A redraw for each token would send the whole answer again for each token."""


@dataclass
class Outcome:
    """An answer that has ended.

    Attributes:
        text: all of it; perhaps none.
        model: the full id that gave it.
        ended: stop, length, stopped (by the person), or whatever the server says.
        dropped: old messages that were left out.
        words: its tokens, where they are known and are the whole text.
        failure: why there is no more of it.
    """

    text: str
    model: str
    ended: str = "stopped"
    dropped: int = 0
    words: list[Word] = field(default_factory=list)
    failure: ApiFailure | None = None

    def info(self, **more: Any) -> dict[str, Any]:
        """What is kept with the turn."""
        found: dict[str, Any] = {"ended": self.ended, **more}
        if self.dropped:
            found["dropped"] = self.dropped
        # A guard may have changed what was said; probabilities of other words would mislead. Of a stopped answer the last
        # tokens may have come without their text.
        if self.words and b"".join(word.raw for word in self.words).decode("utf-8", "ignore").startswith(
            self.text.rstrip()
        ):
            found["words"] = packed(self.words)
        return found


async def receive(
    events: AsyncGenerator[Event, None],
    model: str,
    show: Callable[[str], None],
    named: Callable[[str], None] = lambda model: None,
    begun: str = "",
    words: Sequence[Word] = (),
) -> Outcome:
    """Take an answer to its end. Cancelling the task stops it and keeps what is there.

    Args:
        events: the answer; closed at the end, which stops the model.
        model: who was asked.
        show: called now and then with the text so far.
        named: called when it turns out that another answers.
        begun: how the answer begins already.
        words: the tokens of that.
    """
    out = Outcome(begun, model, words=list(words))
    drawn = time.monotonic()
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                out.text += event.text
                out.words += event.words
                out.dropped = event.dropped or out.dropped
                if event.model and event.model != out.model:
                    out.model = event.model
                    named(event.model)
                out.ended = event.finish_reason or out.ended
                if event.text and time.monotonic() - drawn >= REDRAW_S:
                    show(out.text)
                    drawn = time.monotonic()
    except asyncio.CancelledError:
        out.ended = "stopped"
    except ApiFailure as error:
        out.failure, out.ended = error, "failed"
    except Exception as error:  # only its kind: its words may hold the person's
        log.error("an answer broke off: %s", type(error).__name__)
        out.failure, out.ended = ApiFailure(f"The answer broke off ({type(error).__name__})."), "failed"
    return out
