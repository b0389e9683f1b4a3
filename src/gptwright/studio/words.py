"""The tokens of an answer with their probabilities and what could have stood there instead. Pure.

A token is bytes; a character may be split over several. "Word" is how the page calls it.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALTERNATIVES = 8
"""How many of the likeliest tokens are asked for."""

_CONTROL = re.compile(r"<\|[^|<>]{1,60}\|>")


@dataclass(frozen=True)
class Word:
    """A token.

    Attributes:
        raw: its bytes; none for the end of an answer.
        p: its probability.
        others: other tokens and their probabilities, the likeliest first.
    """

    raw: bytes
    p: float
    others: tuple[tuple[bytes, float], ...] = ()

    @property
    def choices(self) -> list[tuple[bytes, float]]:
        """The token itself and the others, the likeliest first."""
        rest = [(raw, p) for raw, p in self.others if raw != self.raw]
        return sorted([(self.raw, self.p), *rest], key=lambda one: -one[1])


def of_chat(content: Sequence[Mapping[str, Any]]) -> list[Word]:
    """From ``logprobs.content`` of a chat's choice."""
    return [
        Word(
            _bytes(entry),
            _p(entry["logprob"]),
            tuple((_bytes(other), _p(other["logprob"])) for other in entry.get("top_logprobs") or ()),
        )
        for entry in content
    ]


def of_text(logprobs: Mapping[str, Any]) -> list[Word]:
    """From ``logprobs`` of a plain completion's choice, which names tokens by their texts."""
    tops = logprobs.get("top_logprobs") or [None] * len(logprobs["tokens"])
    return [
        Word(_named(name), _p(value), tuple((_named(other), _p(p)) for other, p in (top or {}).items()))
        for name, value, top in zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True)
    ]


def packed(words: Sequence[Word]) -> list[Any]:
    """As plain values for keeping, four digits each."""
    return [[_pack(w.raw), round(w.p, 4), [[_pack(raw), round(p, 4)] for raw, p in w.others]] for w in words]


def unpacked(data: Any) -> list[Word]:
    """Back from ``packed``; nothing where it is none of ours."""
    try:
        return [
            Word(_unpack(raw), float(p), tuple((_unpack(other), float(q)) for other, q in others))
            for raw, p, others in data or ()
        ]
    except (TypeError, ValueError):
        return []


def begin_with(words: Sequence[Word], index: int, choice: int) -> tuple[str, list[Word]] | None:
    """How an answer begins when another token is taken.

    Args:
        words: the answer's.
        index: where.
        choice: of ``words[index].choices``.

    Returns:
        The text up to and with that token, and its words; None when there is no such choice, or a character would be cut in two.
    """
    if not (0 <= index < len(words) and 0 <= choice < len(words[index].choices)):
        return None
    here = words[index]
    raw, p = here.choices[choice]
    if not raw:
        head = list(words[:index])
    else:
        others = tuple(one for one in here.choices if one[0] != raw)
        head = [*words[:index], Word(raw, p, others)]
    try:
        return b"".join(word.raw for word in head).decode(), head
    except UnicodeDecodeError:
        return None


def shown(raw: bytes) -> str:
    """A token as a person reads it: spaces and line ends visible where they are all there is."""
    if not raw:
        return "end of the answer"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "‹" + raw.hex(" ") + "›"
    named = {" ": "␣", "\n": "↵", "\t": "⇥"}
    return text if text.strip() else "".join(named.get(c, c) for c in text)


def percent(p: float) -> str:
    """A probability for people."""
    return "<0.1 %" if p < 0.001 else f"{p:.1%}".replace("%", " %") if p < 0.1 else f"{p:.0%}".replace("%", " %")


def to_html(words: Sequence[Word]) -> str:
    """An answer of tokens that can be reached with Tab and the arrow keys; the less likely one was, the stronger its colour."""
    parts = []
    for index, word in enumerate(words):
        try:
            text = word.raw.decode()
        except UnicodeDecodeError:
            text = shown(word.raw)
        level = 0 if word.p >= 0.9 else 1 if word.p >= 0.6 else 2 if word.p >= 0.3 else 3 if word.p >= 0.1 else 4
        name = html.escape(f"{shown(word.raw)}, {percent(word.p)}", quote=True)
        visible = html.escape(text).replace("\n", '<span aria-hidden="true">↵</span>\n')
        parts.append(
            f'<span class="gw-w gw-w{level}" role="button" data-act="word" data-i="{index}" '
            f'tabindex="{0 if index == 0 else -1}" aria-label="{name}" aria-haspopup="dialog">{visible}</span>'
        )
    return (
        '<div class="gw-words" role="group" aria-label="Words with probabilities. Arrow keys move, Enter shows the alternatives.">'
        + "".join(parts)
        + '</div><p class="gw-help">The stronger the colour, the less the model expected the word. '
        "Choose one to see what else could have stood there.</p>"
    )


def choices_html(words: Sequence[Word], index: int, can_go_on: bool) -> str:
    """What could have stood at a place, with a bar each, and the way to go on from it.

    Args:
        words: the answer's.
        index: the place.
        can_go_on: whether the model can be asked to.
    """
    rows = []
    for number, (raw, p) in enumerate(words[index].choices):
        own = raw == words[index].raw
        label, chance = html.escape(shown(raw), quote=True), percent(p)
        bar = f'<span class="gw-chance" style="width: {max(p, 0.004):.1%}"></span>'
        inner = f'<span class="gw-tok">{label}</span><span class="gw-p">{html.escape(chance)}</span>{bar}'
        possible = can_go_on and not own and begin_with(words, index, number) is not None
        if possible:
            name = (
                f"Go on from {label}, {html.escape(chance)}" if raw else f"End the answer here, {html.escape(chance)}"
            )
            rows.append(
                f'<li><button type="button" data-act="go-on" data-i="{index}" data-k="{number}" aria-label="{name}">{inner}</button></li>'
            )
        else:
            mark = ' aria-current="true"' if own else ""
            rows.append(f"<li><div{mark}>{inner}</div></li>")
    total = sum(p for _, p in words[index].choices)
    rest = f"<p>All others together: {percent(max(0.0, 1 - total))}</p>" if total < 0.999 else ""
    return (
        f'<div class="gw-choices" role="dialog" aria-label="Alternatives to {html.escape(shown(words[index].raw), quote=True)}" '
        f'data-at="{index}" tabindex="-1"><ul>{"".join(rows)}</ul>{rest}</div>'
    )


def _p(logprob: float | None) -> float:
    return 1.0 if logprob is None else min(1.0, math.exp(logprob))


def _bytes(entry: Mapping[str, Any]) -> bytes:
    given = entry.get("bytes")
    return bytes(given) if given is not None else str(entry["token"]).encode()


def _named(name: str) -> bytes:
    if name.startswith("bytes:"):
        return bytes.fromhex(name.removeprefix("bytes:").replace("\\x", ""))
    return b"" if _CONTROL.fullmatch(name) else name.encode()


def _pack(raw: bytes) -> Any:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


def _unpack(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
