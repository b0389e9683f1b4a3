"""Masking of a streamed answer: no half of an e-mail address or phone number ever leaves.

Text comes in pieces of any size. What could still grow into personal data is held back: the last word, and before it
words of a number written in groups. The held tail is bounded, so an answer without spaces still flows.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from gptwright.corpus.privacy import Span, find_pii, placeholder

_KEEP = 320
"""Characters. The longest e-mail address has 254 (RFC 5321), the longest number in groups about 50."""

_MAX_HOLD = 2 * _KEEP
"""More than this is never held. Half of it goes at once: searching a long run of numbers again for each token is slow."""

_CONTEXT = 64
"""Characters of text already sent that patterns may look back at."""

_WORD = re.compile(r"\S+")
_MAY_CONTINUE = re.compile(r"\S*\d\S*|[+()./,;:#*\-–—]+|[A-Z]{2,6}|(?i:e?xtn?|extension|x)[.,:]?")
"""Words that a grouped number can hold before its last group: digits, brackets, IBAN bank codes, "ext."."""

_MAY_BE_GROUP = re.compile(r"[0-9A-Z+()./,;:#*\-–—]*|(?i:e|ex|ext|extn|x|exten\w*)[.,:]?\S*")
"""Beginnings of words that can be a further group of such a number. Whatever else begins ends the number: "3. Wash" is a list."""


class AnswerFilter:
    """Turns pieces of an answer into pieces that are safe to send.

    Args:
        mask: False lets everything through unchanged.
        find: finds personal data in a text.

    Attributes:
        counts: how many of each kind were masked so far.
    """

    def __init__(self, mask: bool = True, find: Callable[[str], Sequence[Span]] = find_pii) -> None:
        self.counts: Counter[str] = Counter()
        self._mask, self._find = mask, find
        self._text = ""  # context that was sent, then what is held
        self._sent = 0  # length of that context

    def push(self, text: str) -> str:
        """Take a piece in; return what may be sent now, possibly nothing."""
        if not self._mask:
            return text
        self._text += text
        cut = max(self._hold_from(), self._sent)
        return self._release(cut) if cut > self._sent else ""

    def finish(self) -> str:
        """The answer is complete: return the rest."""
        return self._release(len(self._text)) if self._mask else ""

    def _hold_from(self) -> int:
        """Where the tail begins that could still become personal data."""
        full = len(self._text) - self._sent > _MAX_HOLD
        oldest = len(self._text) - _KEEP if full else self._sent
        words = list(_WORD.finditer(self._text, oldest))
        if not words:
            return len(self._text)
        at_end = words[-1].end() == len(self._text)
        start = words[-1].start() if at_end else len(self._text)
        if at_end and not _MAY_BE_GROUP.fullmatch(words[-1][0]):
            return start
        for word in reversed(words[:-1] if at_end else words):
            if not _MAY_CONTINUE.fullmatch(word[0]):
                break
            start = word.start()
        return start

    def _release(self, cut: int) -> str:
        # The spans are found in all that is known, not only in what is released: a span across the cut moves the cut.
        spans = self._find(self._text)
        for span in spans:
            if span.start < cut < span.end:
                too_long = len(self._text) - max(span.start, self._sent) > _MAX_HOLD + _KEEP
                cut = span.end if too_long else max(span.start, self._sent)
        out: list[str] = []
        at = self._sent
        for span in spans:
            if span.end <= at or span.end > cut:
                continue
            out += (self._text[at : max(span.start, at)], placeholder(span.kind))
            self.counts[span.kind] += 1
            at = span.end
        out.append(self._text[at:cut])
        kept = max(cut - _CONTEXT, 0)
        self._text, self._sent = self._text[kept:], cut - kept
        return "".join(out)
