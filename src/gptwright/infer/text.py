"""From token ids to text that may be shown: whole characters only, and nothing that may still become a stop text."""

from collections.abc import Collection, Sequence
from typing import Protocol


class Decoder(Protocol):
    """The tokenizer's incremental decoder: never gives half a character."""

    def push(self, token_id: int, /) -> str: ...

    def finish(self) -> str: ...


class StopMatcher:
    """Finds stop texts in a stream of text pieces, across their borders; holds back only what may begin one.

    Args:
        stops: texts that end the answer.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Add text.

        Returns:
            The text that may be shown now, and whether a stop text was found (then all before its first occurrence is shown).
        """
        if not self._stops:
            return text, False
        self._held += text
        # The first to be complete ends it, as if the text came letter by letter: where tokens end must not matter.
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            shown, self._held = self._held[: min(found)[1]], ""
            return shown, True
        keep = max(self._partial(stop) for stop in self._stops)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def finish(self) -> str:
        """What was held back and did not become a stop text."""
        rest, self._held = self._held, ""
        return rest

    def _partial(self, stop: str) -> int:
        """Length of the longest end of the held text that begins ``stop``."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0


class TextStream:
    """Decoder and stop texts in one: token ids in, showable text out.

    Args:
        decoder: of the tokenizer.
        stops: texts that end the answer.
        breaks: control tokens that divide it: all text before one comes out with it at the latest.
    """

    def __init__(self, decoder: Decoder, stops: Sequence[str], breaks: Collection[int] = ()) -> None:
        self._decoder, self._matcher, self._breaks = decoder, StopMatcher(stops), breaks

    def push(self, token_id: int) -> tuple[str, bool]:
        """Text that this token makes certain, and whether a stop text is complete."""
        return self.finish() if token_id in self._breaks else self._matcher.push(self._decoder.push(token_id))

    def finish(self) -> tuple[str, bool]:
        """The rest at the end; an unfinished character comes out as U+FFFD. It may still complete a stop text."""
        shown, stopped = self._matcher.push(self._decoder.finish())
        return (shown, True) if stopped else (shown + self._matcher.finish(), False)
