"""Three plain signs that a reply is readable: it ends a sentence, does not repeat itself, and keeps to the subject.

They are shares over many replies with intervals. They say nothing about truth or wit.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptwright.evaluate.statistics import Share, wilson

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_END = re.compile(r"[.!?…。！？][\"'”’)\]*]*$")
_EMOTICON = re.compile(r"(?:\s*(?:[:;=]-?[)(DPp]|<3|[\U0001F300-\U0001FAFF\u2600-\u27BF\uFE0F]))+$")
_GRAM = 4


@dataclass(frozen=True)
class ChatQuality:
    """Shares of replies with each sign, and with all three."""

    complete_sentence: Share
    no_repeat: Share
    on_subject: Share
    all_three: Share
    failures: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object for reports and the ledger."""
        return asdict(self)


def chat_quality(replies: Sequence[str], contexts: Sequence[str | Sequence[dict[str, Any]]]) -> ChatQuality:
    """Measure replies against the conversations they continue.

    Args:
        replies: one text each, unedited.
        contexts: for each reply the conversation before it: a text, or messages with ``content``.

    Returns:
        Shares with 95 % Wilson intervals; ``failures`` are the places of replies that miss any sign.
    """
    if len(replies) != len(contexts):
        raise ValueError(f"{len(replies)} replies for {len(contexts)} conversations")
    signs = [
        (ends_in_sentence(reply), not repeats(reply), shares_subject(reply, context))
        for reply, context in zip(replies, contexts, strict=True)
    ]
    complete, fresh, on_subject = (wilson(sum(sign[i] for sign in signs), len(signs)) for i in range(3))
    failures = tuple(i for i, sign in enumerate(signs) if not all(sign))
    return ChatQuality(complete, fresh, on_subject, wilson(len(signs) - len(failures), len(signs)), failures)


def ends_in_sentence(reply: str) -> bool:
    """Whether there is a word and the last sentence is closed: a full stop, ! or ?, before closing quotes or an emoticon."""
    text = _EMOTICON.sub("", reply.strip()).rstrip()
    return _END.search(text) is not None and _WORD.search(text) is not None


def repeats(reply: str, n: int = _GRAM) -> bool:
    """Whether some n words in a row occur twice in the reply, whatever their case."""
    words = _words(reply)
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) < len(grams)


def shares_subject(reply: str, context: str | Sequence[dict[str, Any]]) -> bool:
    """Whether reply and conversation have a content word in common (no stop word, three letters or more, plural s apart)."""
    text = context if isinstance(context, str) else "\n".join(str(message["content"]) for message in context)
    return bool(_content_words(reply) & _content_words(text))


@functools.cache
def stop_words() -> frozenset[str]:
    """Words that carry the grammar rather than the subject. English; the list was written for this check."""
    return frozenset(Path(__file__).with_name("stop_words.txt").read_text(encoding="utf-8").split())


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]


def _content_words(text: str) -> set[str]:
    words = (word.removesuffix("'s") for word in _words(text) if word not in stop_words())
    return {_singular(word) for word in words if len(word) >= 3 and word not in stop_words()}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
