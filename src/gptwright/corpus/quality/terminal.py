"""Labelling in the terminal: a document, a key, the next one. Works with keys from a pipe as well."""

import contextlib
import os
import re
import select
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

from gptwright.corpus.quality import labels
from gptwright.corpus.quality.desk import Desk

SHOWN_CHARS = 1_500
# A document must not be able to move the cursor, rename the window or hide what stands there.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Sitting:
    """What a sitting came to."""

    task: str
    added: int
    total: int
    positive: int
    negative: int
    finished: bool  # the target is reached, or there is nothing more to label


def label_terminal(desk: Desk, *, keys: TextIO | None = None, out: TextIO | None = None) -> Sitting:
    """Ask about documents until the target is reached, the documents end, or the person stops.

    Args:
        desk: the sitting.
        keys: where keys come from: a terminal, or a pipe with one letter a document (white space does not count). None is stdin.
        out: where documents are shown. None is stderr, so that stdout stays free for results.
    """
    keys, out = keys or sys.stdin, out or sys.stderr
    first, second = desk.positive[0], desk.negative[0]
    words = {first: desk.positive, second: desk.negative, "s": labels.SKIP}
    before = sum(desk.counts())
    with _keys(keys) as read:
        while (sheet := desk.current) is not None and sum(desk.counts()) < desk.target:
            shown = _CONTROL.sub("\ufffd", sheet.text[:SHOWN_CHARS])
            more = f"\n[... {len(sheet.text) - SHOWN_CHARS:,} more characters]" if len(sheet.text) > SHOWN_CHARS else ""
            where = _CONTROL.sub("\ufffd", f"{sheet.source}/{sheet.locator}")
            body = textwrap.indent(shown + more, "  ", lambda _: True)
            print(f"\n{desk.progress()} · {where}\n\n{body}\n", file=out)
            prompt = f"{first} {desk.positive}, {second} {desk.negative}, s skip, u undo, q quit: "
            while True:
                print(prompt, end="", file=out, flush=True)
                key = read()
                print(key, file=out)
                if key in ("", "q", "\x03", "\x04"):
                    return _sitting(desk, before, False)
                if key in words:
                    desk.mark(words[key])
                    break
                if key == "u":
                    if desk.undo():
                        break
                    print("Nothing of this sitting to undo.", file=out)
        print(f"\n{desk.progress()}", file=out)
    return _sitting(desk, before, True)


def _sitting(desk: Desk, before: int, finished: bool) -> Sitting:
    positive, negative = desk.counts()
    return Sitting(desk.task, positive + negative - before, positive + negative, positive, negative, finished)


@contextlib.contextmanager
def _keys(source: TextIO) -> Iterator[Callable[[], str]]:
    """A function that reads the next key, "" at the end."""
    if source.isatty() and sys.platform == "win32":  # pragma: no cover
        import msvcrt

        yield lambda: msvcrt.getwch().lower()
        return
    if not source.isatty():

        def piped() -> str:
            while (key := source.read(1)) and key.isspace():
                pass
            return key.lower()

        yield piped
        return
    import termios
    import tty

    settings = termios.tcgetattr(source)
    try:
        tty.setcbreak(source)
        yield lambda: _typed(source.fileno())
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, settings)


def _typed(terminal: int) -> str:
    """One key of a terminal. An arrow or function key arrives as several signs, the last of which could be a letter of ours."""
    raw = os.read(terminal, 1)
    if raw == b"\x1b" and select.select([terminal], [], [], 0.02)[0]:
        os.read(terminal, 16)
    return raw.decode("latin-1").lower()
