"""Chat turns written as sentences, as edits: capital first letters, capital I, apostrophes, full stops where a message ends.

A small model learns what it sees. People in a chat leave out what everybody reads in anyway; a model of that never ends a sentence.
"""

import re
from collections.abc import Iterator, Sequence

from gptwright.corpus.edits import Edit

_WORDS = {
    "i": "I", "im": "I'm", "ive": "I've", "i'm": "I'm", "i've": "I've", "i'd": "I'd", "i'll": "I'll", "dont": "don't",
    "doesnt": "doesn't", "didnt": "didn't", "cant": "can't", "couldnt": "couldn't", "wouldnt": "wouldn't", "wont": "won't",
    "isnt": "isn't", "wasnt": "wasn't", "arent": "aren't", "havent": "haven't", "hasnt": "hasn't", "thats": "that's",
    "whats": "what's", "youre": "you're", "theyre": "they're", "youve": "you've", "theres": "there's", "shouldnt": "shouldn't",
}  # fmt: skip
_WORD = re.compile(
    r"(?<![\w'.@/:-])(" + "|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True)) + r")(?![\w'@/-]|\.\w)",
    re.IGNORECASE,
)
_LAUGH = re.compile(r"\b(?:ha){3,}h?\b|\b(?:ah)?a*(?:ha){3,}a*h?\b", re.IGNORECASE)
_RUN = re.compile(r"([!?])\1+")
_LINE = re.compile(r"[^\n]+")
_FIRST = re.compile(r"[\"'(]?([a-z])(?=[a-z']*(?:[\s,.!?]|$))")
_NEXT = re.compile(
    r"(?<=[a-z)!?][.!?] )[a-z](?=[a-z']*[ ,.!?])"
)  # a sentence inside a message; "e.g. this" has no letter pair before
_ENDED = re.compile(r"[.!?…:;,\-)\]\"'*~]$|[:;=][\-']?[dDpPoO/|(]$|<3$")
_MARKS = re.compile(r"[?!.]+(?:\n[?!.]+)*")
_QUESTION = re.compile(
    r"(and |so |but |oh |well |or |haha |yeah |hi |hello |hey )*(how (about|are|is|was|were|do|does|did|long|many|much|old|come|would|can)|"
    r"what('?s| about| is| was| are| were| do| does| did| would| kind| sort| type| else)|where('?s| is| are| do| did| would)|who('?s| is| are| do)|"
    r"why( is| are| do| did| would| not)?|when (is|are|do|did)|which (one|is)|do you|did you|are you|have you|has it|can you|could you|"
    r"would you|will you|is (it|that|there|this)|was (it|that)|are (there|they)|does (it|that)|you\?|really\?)\b",
    re.IGNORECASE,
)


def tidy_edits(turn: str, fixed: Sequence[Edit] = ()) -> list[Edit]:
    """Edits that write a chat turn as sentences.

    Args:
        turn: one turn; its lines are the messages it was sent in.
        fixed: edits that stand already (masks); none is touched.

    Returns:
        Edits of kind TIDY, in order, apart from each other and from ``fixed``.
    """
    chosen: list[Edit] = []
    taken = [(edit.start, edit.end) for edit in fixed]
    for edit in _candidates(turn):
        if all(edit.end <= start or end <= edit.start for start, end in taken):
            taken.append((edit.start, edit.end))
            chosen.append(edit)
    return sorted(chosen, key=lambda edit: (edit.start, edit.end))


def _candidates(turn: str) -> Iterator[Edit]:
    for match in _WORD.finditer(turn):
        word = _WORDS[match[0].lower()]
        if _starts_line(turn, match.start()):
            word = word[0].upper() + word[1:]
        if word != match[0]:
            yield Edit(*match.span(), "TIDY", word)
    for match in _LAUGH.finditer(turn):
        laugh = "Haha" if _starts_line(turn, match.start()) else "haha"
        if laugh != match[0]:
            yield Edit(*match.span(), "TIDY", laugh)
    for line in _LINE.finditer(turn):
        if first := _FIRST.match(line[0]):
            at = line.start() + first.start(1)
            yield Edit(at, at + 1, "TIDY", first[1].upper())
        if _MARKS.fullmatch(line[0]) and line.start() > 0:
            continue  # it was taken by the line before
        ended = bool(_ENDED.search(line[0]))
        after = _MARKS.match(turn, line.end() + 1)
        if after and turn[after.end() : after.end() + 1] in ("", "\n"):  # a forgotten "?" that was sent by itself
            rest = " " if after.end() < len(turn) else ""
            yield Edit(line.end(), min(after.end() + 1, len(turn)), "TIDY", ("" if ended else after[0][0]) + rest)
            continue
        stop = "" if ended else "?" if _QUESTION.match(line[0]) and len(line[0].split()) <= 14 else "."
        if line.end() < len(turn):
            yield Edit(line.end(), line.end() + 1, "TIDY", stop + " ")
        elif stop:
            yield Edit(line.end(), line.end(), "TIDY", stop)
    for match in _RUN.finditer(turn):
        yield Edit(*match.span(), "TIDY", match[1])
    for match in _NEXT.finditer(turn):
        yield Edit(*match.span(), "TIDY", match[0].upper())


def _starts_line(turn: str, at: int) -> bool:
    return at == 0 or turn[at - 1] == "\n"
