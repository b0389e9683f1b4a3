"""What is to be known of a run or a word by itself, as bits; and the phrases that the rules look for."""

# mypy: disable-error-code="no-untyped-def, assignment"
# numba finds the types; numpy's integers and Python's are one to it.
# ruff: noqa: SIM102, SIM110

import numpy as np

from gptwright.corpus.signals.arrays import get_cp, get_keys, get_lower, get_text, get_text_fl, get_values
from gptwright.corpus.signals.chars import (
    ALNUM,
    ALPHA,
    LOWER,
    PUNCT,
    SENTENCE,
    SYMBOL,
    TITLE,
    UPPER,
)
from gptwright.corpus.signals.exceptions import ABBREVIATION, STOP
from gptwright.corpus.signals.jit import ZERO, part
from gptwright.corpus.signals.tokens import exception_of

# Marks of runs
(
    HAS_ALPHA,
    IS_STOP,
    IS_STOP_ANY,
    IS_CAPS,
    HAS_SCRIPT,
    MAY_PHRASE,
    HAS_CURLY,
    HAS_SQUARE,
    ENDS_SENTENCE,
    IS_SYMBOL,
    STARTS_LOWER,
) = (1 << i for i in range(11))
# Marks of words
NO_SYMBOL, WORD_ALPHA, WORD_STOP, WORD_END, WORD_PUNCT, WORD_ALNUM = (1 << i for i in range(6))
# Phrases found at a run
LOREM, POLICY, SCRIPT = 1, 2, 4

PHRASES = (
    "javascript", "ipsum", "lorem ", "policy", "privacy ", "cookie ", "cookies", "uses ", "use ", "use of ", "terms", " of use", "...", "[...]",
    "(...)", "[…]", "read more", "sign-in", "read more...", "items in cart", "likes", "views", "shares", "quotes", "reposts", "upvotes",
    "comments", "retweets", "bookmarks", "downvotes", "downloads", "followers", "edit]", "citation needed]",
)  # fmt: skip
_TEXT = np.array([ord(c) for phrase in PHRASES for c in phrase], np.int32)
_FROM = np.array([sum(len(p) for p in PHRASES[:i]) for i in range(len(PHRASES) + 1)], np.int64)
(
    _JAVASCRIPT, _IPSUM, _LOREM, _POLICY, _PRIVACY, _COOKIE, _COOKIES, _USES, _USE, _USE_OF, _TERMS, _OF_USE, _DOTS, _SQUARE, _ROUND, _MARK,
    READ_MORE, SIGN_IN, READ_ON, IN_CART, LIKES, VIEWS, SHARES, QUOTES, REPOSTS, UPVOTES, COMMENTS, RETWEETS, BOOKMARKS, DOWNVOTES,
    DOWNLOADS, FOLLOWERS, EDIT, NEEDED,
) = map(np.int64, range(len(PHRASES)))  # fmt: skip


@part
def says(cp, lower, at, end, phrase):
    """Whether a phrase, by number, stands at a place, in any case; all of it before ``end``."""
    size = _FROM[phrase + 1] - _FROM[phrase]
    if at < 0 or at + size > end:
        return False
    for k in range(size):
        if lower[cp[at + k]] != _TEXT[_FROM[phrase] + k]:
            return False
    return True


@part
def marks_of_run(room, s, e, exception):
    cp, fl, lower = get_text(room), get_text_fl(room), get_lower(room)
    marks = ZERO
    every = np.uint32(0)
    hashes = 0
    for i in range(s, e):
        every |= fl[i]
        c = cp[i]
        if c == 123:
            marks |= HAS_CURLY
        elif c == 91:
            marks |= HAS_SQUARE
        elif (c == 106 or c == 74) and says(cp, lower, i, e, _JAVASCRIPT):
            marks |= HAS_SCRIPT
        elif c == 35 and (i == s or cp[i - 1] != 35):
            hashes += 1
    if every & ALPHA:
        marks |= HAS_ALPHA
    if every & UPPER and not every & (LOWER | TITLE):
        marks |= IS_CAPS
    if exception & STOP:
        marks |= IS_STOP | IS_STOP_ANY
    elif e - s <= 4 and every & UPPER and _small(room, s, e) & STOP:
        marks |= IS_STOP_ANY
    first = lower[cp[s]]
    if first == 105:
        may = says(cp, lower, s, e, _IPSUM)
    elif first == 112:
        may = says(cp, lower, s, e, _POLICY)
    elif first == 99:
        may = says(cp, lower, s, e, _COOKIES)
    else:
        may = False
    if may or says(cp, lower, e - 5, e, _TERMS):
        marks |= MAY_PHRASE
    if fl[s] & LOWER:
        marks |= STARTS_LOWER
    if 2 * hashes > e - s or (e - s <= 5 and _is_ellipsis(cp, lower, s, e)):
        marks |= IS_SYMBOL
    end = e
    while end > s and fl[end - 1] & PUNCT and not fl[end - 1] & SENTENCE and cp[end - 1] != 0x2026:
        end -= 1
    if end > s and fl[end - 1] & SENTENCE:
        marks |= ENDS_SENTENCE
        if cp[end - 1] == 46:
            begin = s
            while begin < end - 1 and fl[begin] & PUNCT:
                begin += 1
            inner = False
            for i in range(begin, end - 1):
                inner = inner or cp[i] == 46
            single = end - 1 - begin == 1 and fl[begin] & ALPHA != 0
            if inner or single or _small(room, begin, end - 1) & ABBREVIATION:
                marks &= ~ENDS_SENTENCE
    return marks


@part
def _is_ellipsis(cp, lower, s, e):
    """Whether a run is one of NeMo Curator's ellipsis marks."""
    size = e - s
    if size == 1:
        return cp[s] == 0x2026
    if size == 2:
        return cp[s] == 45 and cp[s + 1] == 0xBB
    if size == 3:
        return says(cp, lower, s, e, _DOTS) or says(cp, lower, s, e, _MARK)
    return size == 5 and (says(cp, lower, s, e, _SQUARE) or says(cp, lower, s, e, _ROUND))


@part
def _small(room, s, e):
    """What the table of exceptions says of a word in small letters, for words of up to six characters."""
    size = e - s
    if size < 2 or size > 6:
        return ZERO
    at = len(get_text(room)) - 8  # the last places of the buffer are never text
    for k in range(size):
        get_text(room)[at + k] = get_lower(room)[get_text(room)[s + k]]
    return exception_of(get_text(room), at, at + size, get_keys(room), get_values(room))


@part
def marks_of_word(room, s, e):
    fl = get_text_fl(room)
    every, all_ = np.uint32(0), np.uint32(0xFFFFFFFF)
    for i in range(s, e):
        every |= fl[i]
        all_ &= fl[i]
    marks = 0
    if not all_ & SYMBOL:
        marks |= NO_SYMBOL
    if every & ALPHA:
        marks |= WORD_ALPHA
    if all_ & PUNCT:
        marks |= WORD_PUNCT
    if e - s == 1 and all_ & SENTENCE:
        marks |= WORD_END
    if fl[s] & ALNUM:
        marks |= WORD_ALNUM
    if exception_of(get_text(room), s, e, get_keys(room), get_values(room)) & STOP:
        marks |= WORD_STOP
    return marks


@part
def phrase_at(room, s, e, first, end, marks):
    """Which phrases of C4 stand at a run, as bits; ``first`` and ``end`` bound the text that may belong to them."""
    found = np.int64(SCRIPT) if marks & HAS_SCRIPT else 0
    if not marks & MAY_PHRASE:
        return found
    cp, lower = get_cp(room), get_lower(room)
    if says(cp, lower, s, e, _IPSUM) and s - 6 >= first and says(cp, lower, s - 6, s, _LOREM):
        found |= LOREM
    if says(cp, lower, s, e, _POLICY):
        if (s - 8 >= first and says(cp, lower, s - 8, s, _PRIVACY)) or (
            s - 7 >= first and says(cp, lower, s - 7, s, _COOKIE)
        ):
            found |= POLICY
    if says(cp, lower, s, e, _COOKIES):
        if (
            (s - 5 >= first and says(cp, lower, s - 5, s, _USES))
            or (s - 4 >= first and says(cp, lower, s - 4, s, _USE))
            or (s - 7 >= first and says(cp, lower, s - 7, s, _USE_OF))
        ):
            found |= POLICY
    if says(cp, lower, e - 5, e, _TERMS) and says(cp, lower, e, end, _OF_USE):
        found |= POLICY
    return found
