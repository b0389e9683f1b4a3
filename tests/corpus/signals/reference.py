"""The same signals, plainly: one text at a time with Python's own strings and regular expressions. Slow, and easy to read."""

import math
import re
import statistics
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import Any

from gptwright.corpus.signals import chars, exceptions

STOP = ["the", "be", "to", "of", "and", "that", "have", "with"]
FLAGS = chars.flags()
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
COUNTER = re.compile(
    r"\W*\d[,.\d]*[kmb]?\s+(?:likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|views|followers)\W*"
)
URL = re.compile(r"https?://(?:[a-zA-Z0-9$\-_@.&+!*\\(),]|%[0-9a-fA-F]{2})+")


def has(char: str, bit: int) -> bool:
    return bool(FLAGS[ord(char)] & bit)


def low(text: str) -> str:
    """Small letters, one for one."""
    return "".join(chr(chars.lower()[ord(c)]) for c in text)


def over(a: float, b: float) -> float:
    return a / b if b else 0.0


# ruff: noqa: E501
# --- words -----------------------------------------------------------------------------------------------------------


def special(word: str) -> int:
    mark = exceptions.exceptions().get(word, 0)
    return mark if mark & exceptions.SPECIAL else 0


def cut(word: str, mark: int) -> list[str]:
    places = [0, *[i for i in range(1, len(word)) if mark >> i & 1], len(word)]
    return [word[a:b] for a, b in pairwise(places)]


def prefix(word: str) -> int:
    if match := re.match(r"\.\.+", word):
        return match.end()
    if word[:1] == "+":
        return 0 if re.match(r"\+[0-9]", word) else 1
    if word and has(word[0], chars.PREFIX):
        return 1
    match = re.match(r"US\$|[CA]\$", word)
    return match.end() if match else 0


def suffix(word: str) -> int:
    if not word:
        return 0
    if match := re.search(r"(?<!\.)\.+\Z", word):
        if len(match[0]) > 1:
            return len(match[0])
        head = word[:-1]
        if not head:
            return 0
        last = head[-1]
        punct = has(last, chars.SUFFIX) and has(last, chars.PUNCT | chars.QUOTE)
        if last in "0123456789%²-+<>" or has(last, chars.PLAIN_LOWER) or punct:
            return 1
        return int(len(head) > 1 and all(has(c, chars.PLAIN_UPPER) for c in head[-2:]))
    if re.search(r"['’][sS]\Z", word):
        return 2
    for size in (4, 3, 2, 1):
        if (
            size < len(word)
            and word[-size - 1] in "0123456789"
            and exceptions.exceptions().get(word[-size:], 0) & exceptions.UNIT
        ):
            return size
    if len(word) > 1 and word[-2] in "0123456789" and (word[-1] == "+" or has(word[-1], chars.CURRENCY)):
        return 1
    if word.endswith("……"):
        return 2
    return int(has(word[-1], chars.SUFFIX) or word[-1] == "…")


def host(text: str) -> bool:
    run = ""
    for char in text:
        if not (has(char, chars.HOST) or char in "_-."):
            break
        run += char
    *labels, top = run.split(".")
    if not labels or not 2 <= len(top) <= 63 or not all(has(c, chars.PLAIN_LOWER) for c in top):
        return False
    if not all(1 <= len(x) <= 64 and has(x[0], chars.HOST) and has(x[-1], chars.HOST) for x in labels):
        return False
    return bool(re.fullmatch(r"(:[0-9]{2,5})?([/?#].*)?", text[len(run) :], re.S))


def url(word: str) -> bool:
    if "." not in word:
        return False
    starts = [0, *[i + 1 for i, c in enumerate(word) if c == "@" and i]]
    if match := re.match(r"[\w+\-.]{2,}://", word):
        starts.append(match.end())
    return any(host(word[start:]) for start in starts)


def infix(word: str, i: int) -> int:
    rest, c = word[i:], word[i]
    if match := re.match(r"\.\.+", rest):
        return match.end()
    left, right = word[i - 1] if i else "", rest[1:2]
    alpha = chars.PLAIN_LOWER | chars.PLAIN_UPPER
    if c == ".":
        quoted = (
            bool(left and right)
            and has(left, chars.PLAIN_LOWER | chars.QUOTE)
            and has(right, chars.PLAIN_UPPER | chars.QUOTE)
        )
        return int(quoted)
    if has(c, chars.ICON):
        return 1
    if not left or not right:
        return 0
    if c in "+-*^" and left in "0123456789" and right in "0123456789-":
        return 1
    if c == ",":
        return int(has(left, alpha) and has(right, alpha))
    follows = has(left, alpha) or left in "0123456789"
    if has(c, chars.HYPHEN):
        for mark in ("-", "–", "—", "~", "--", "---", "——"):
            if follows and rest.startswith(mark) and len(rest) > len(mark) and has(rest[len(mark)], alpha):
                return len(mark)
        return 0
    return int(c in ":<>=/" and follows and has(right, alpha))


def spacy_words(word: str) -> list[str]:
    if mark := special(word):
        return cut(word, mark)
    front: list[str] = []
    back: list[str] = []
    size = -1
    while word and len(word) != size:
        if special(word):
            break
        size = len(word)
        pre = prefix(word)
        if pre and word[pre:] and special(word[pre:]):
            front.append(word[:pre])
            word = word[pre:]
            break
        suf = suffix(word[pre:])
        if suf and word[:-suf] and special(word[:-suf]):
            back.insert(0, word[-suf:])
            word = word[:-suf]
            break
        if pre:
            front.append(word[:pre])
        if suf:
            back.insert(0, word[len(word) - suf :])
        word = word[pre : len(word) - suf]
    core: list[str] = []
    if word and special(word):
        core = cut(word, special(word))
    elif word and url(word):
        core = [word]
    elif word:
        at, i = 0, 0
        while i < len(word):
            step = infix(word, i)
            if not step or i == 0:
                i += max(step, 1)
                continue
            core += [word[at:i], word[i : i + step]] if i > at else [word[i : i + step]]
            i += step
            at = i
        core += [word[at:]] if at < len(word) else []
    return faces(front + core + back)


def faces(words: list[str]) -> list[str]:
    out, i = [], 0
    while i < len(words):
        step = 1
        for j in range(min(len(words), i + 7), i + 1, -1):
            joined = "".join(words[i:j])
            if len(joined) <= 7 and special(joined) and not special(joined) & (exceptions.SPECIAL - 1):
                step = j - i
                break
        out.append("".join(words[i : i + step]))
        i += step
    return out


def unicode_words(run: str) -> list[str]:
    classes = [int(chars.word_classes()[ord(c)]) for c in run]
    solid = [i for i, c in enumerate(classes) if c != chars.EXTEND or i == 0]
    strong = (chars.LETTER, chars.NUMERIC)
    joins = set()
    for k in range(1, len(solid)):
        a, b = classes[solid[k - 1]], classes[solid[k]]
        after = classes[solid[k + 1]] if k + 1 < len(solid) else -1
        before = classes[solid[k - 2]] if k > 1 and solid[k - 1] in joins else -1
        middle = {chars.LETTER: (chars.MID_LETTER, chars.MID_BOTH), chars.NUMERIC: (chars.MID_NUMBER, chars.MID_BOTH)}
        linked = (*strong, chars.KATAKANA, chars.CONNECTOR)
        if (
            (a in strong and b in strong)
            or (a in linked and b == chars.CONNECTOR)
            or (a == chars.CONNECTOR and b in linked)
            or (a == b == chars.KATAKANA)
            or (a in strong and b in middle[a] and after == a)
            or (before in strong and a in middle[before] and b == before)
        ):
            joins.add(solid[k])
    starts = [i for i in solid if i not in joins]
    return [run[a:b] for a, b in zip(starts, [*starts[1:], len(run)], strict=True) if run[a].isalnum()]


# --- sentences -------------------------------------------------------------------------------------------------------


def sentences(text: str) -> int:
    """spaCy's sentencizer over its words; white space of more than one blank is a word."""
    words: list[str] = []
    for match in re.finditer(r"\s+|\S+", text):
        part = match[0]
        if part.isspace():
            if (match.start() and part != " ") or not match.start():
                words.append(part)
        else:
            words += spacy_words(part)
    total, ended = int(bool(text)), False
    for word in words:
        if len(word) == 1 and has(word, chars.SENTENCE):
            ended = True
        elif ended and not all(unicodedata.category(c)[0] == "P" for c in word):
            total, ended = total + 1, False
    return total


def prose_sentences(line: str) -> int:
    runs = line.split()
    total = int(bool(runs))
    for run, after in pairwise(runs):
        end = len(run)
        while end and has(run[end - 1], chars.PUNCT) and not has(run[end - 1], chars.SENTENCE) and run[end - 1] != "…":
            end -= 1
        if not end or not has(run[end - 1], chars.SENTENCE) or after[0].islower():
            continue
        word = run[: end - 1]
        while word and has(word[0], chars.PUNCT):
            word = word[1:]
        short = run[end - 1] == "." and ("." in word or (len(word) == 1 and word.isalpha()) or abbreviation(word))
        total += not short
    return total


def abbreviation(word: str) -> bool:
    return 2 <= len(word) <= 6 and bool(exceptions.exceptions().get(low(word), 0) & exceptions.ABBREVIATION)


# --- repetition ------------------------------------------------------------------------------------------------------


def copies(texts: list[str]) -> tuple[int, int]:
    """Second and later copies: how many, and their characters."""
    seen: set[str] = set()
    again = [t for t in texts if t in seen or seen.add(t)]  # type: ignore[func-returns-value]
    return len(again), sum(map(len, again))


def repetition(text: str) -> dict[str, float]:
    out = {}
    paragraphs = re.split(r"\n{2,}", text.strip()) if text.strip() else []
    lines = re.split(r"\n+", text)
    for name, parts in (("paragraph", paragraphs), ("line", lines)):
        times, size = copies(parts)
        out[f"dup_{name}s@datatrove"] = over(times, len(parts))
        out[f"dup_{name}_chars@datatrove"] = over(size, len(text))
    words = [w for run in text.split() for w in spacy_words(run)]
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if n < 5:
            top = Counter(grams).most_common(1)
            out[f"top_{n}gram@datatrove"] = over(len(" ".join(top[0][0])) * top[0][1], len(text)) if top else 0.0
            continue
        seen, repeated, i = set(), 0, 0
        while i < len(grams):
            if grams[i] in seen:
                repeated += sum(map(len, grams[i]))
                i += n
            else:
                seen.add(grams[i])
                i += 1
        out[f"dup_{n}gram@datatrove"] = over(repeated, len(text))
    for name, mark in (("paragraph", "\n\n"), ("line", "\n")):
        counts = Counter(p for part in text.split(mark) if (p := part.strip()))
        more = {p: c for p, c in counts.items() if c > 1} if counts.total() > 1 else {}
        out[f"dup_{name}s@dclm"] = over(sum(more.values()), counts.total())
        out[f"dup_{name}_chars@dclm"] = over(
            sum(len(p) * c for p, c in more.items()), sum(len(p) * c for p, c in counts.items())
        )
    words = [w for run in text.split() for w in unicode_words(run)]
    total = sum(map(len, words))
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counted = Counter(grams)
        most = max(counted.values(), default=0)
        if n < 5:
            longest = max((sum(map(len, g)) for g, c in counted.items() if c == most), default=0)
            out[f"top_{n}gram@dclm"] = over(longest * most, total) if most > 1 else 0.0
        else:
            covered = {i + k for i, g in enumerate(grams) if counted[g] > 1 for k in range(n)}
            out[f"dup_{n}gram@dclm"] = over(sum(len(words[i]) for i in covered), total)
    return out


# --- rules for lines -------------------------------------------------------------------------------------------------


def c4(text: str, at: str) -> dict[str, int]:
    lines, words, total, lorem, curly = 0, 0, 0, 0, 0
    for line in text.splitlines():
        line = line.strip()
        before = line.split()
        if any(len(word) > 1000 for word in before):
            continue
        line = CITATION.sub("", line)
        marks = (".", "?", "!", '"') if at == "reference" else (".", "?", "!", '"', "'")
        if at != "fineweb" and (not line.endswith(marks) or line.endswith("...")):
            continue
        if (len(line.split()) < 5) if at == "reference" else (len(before) < 3):
            continue
        small = low(line)
        if "lorem ipsum" in small:
            lorem = 1
        elif "javascript" in small:
            continue
        elif "{" in line:
            curly = 1
        elif any(phrase in small for phrase in POLICY):
            continue
        lines += 1
        words += len(line.split())
        total += prose_sentences(line) if at == "reference" else sentences(line)
    keys = ("lines", "words", "sentences", "lorem_ipsum", "curly_bracket")
    return {f"c4_{key}@{at}": value for key, value in zip(keys, (lines, words, total, lorem, curly), strict=True)}


def refinedweb(text: str) -> dict[str, float]:
    gone, lost, total = 0, 0, 0
    for line in text.split("\n"):
        size = sum(len(unicode_words(run)) for run in line.split())
        total += size
        if not line:
            continue
        upper, digits = sum(c.isupper() for c in line), sum(c.isdigit() for c in line)
        if upper > len(line) / 2 or digits == len(line) or COUNTER.fullmatch(low(line)) or len(line.split()) < 2:
            gone += 1
            lost += size
        elif len(line.split()) <= 10:
            small = low(line)
            found = (
                2 * small.startswith("sign-in") + 2 * small.endswith("read more...") + 3 * small.count("items in cart")
            )
            lost += min(found, size)
    return {"lines_removed@dclm": gone, "words_removed@dclm": over(lost, total)}


# --- all -------------------------------------------------------------------------------------------------------------


def measure(text: str) -> dict[str, Any]:
    """Every signal of a text but language and compression."""
    n = len(text)
    visible = [c for c in text if not c.isspace()]
    out: dict[str, Any] = {
        "n_bytes": len(text.encode()), "n_chars": n,
        "letter_share": over(sum(c.isalnum() and not c.isdecimal() for c in visible), len(visible)),
        "upper_share": over(sum(c.isupper() for c in text), n), "digit_share": over(sum(c.isdecimal() for c in text), n),
        "punct_share": over(sum(unicodedata.category(c)[0] == "P" for c in text), n), "space_share": over(n - len(visible), n),
        "alnum_share": over(sum(c.isalnum() for c in text), n), "curly_share": over(sum(c in "{}" for c in text), n),
        "non_alnum@curator": len(re.sub(r"[a-zA-Z0-9\n?!,.]", "", text)) / n if n else 1.0,
        "space_share@curator": sum(c in "\t\n\r\b " for c in text) / n if n else 1.0,
        "parentheses@curator": sum(c in "{}⟨⟩[]()" for c in text) / n if n else 1.0,
        "url_share@curator": sum(map(len, URL.findall(text))) / n if n else 1.0,
    }  # fmt: skip
    words = text.split()
    total = len(words)
    counts = Counter(words)
    stops = sum(low(w) in STOP for w in words)
    alpha = sum(any(c.isalpha() for c in w) for w in words)
    dots = text.count("...") + text.count("…")
    ellipses = {"...", "[...]", "…", "(...)", "[…]", "-»"}
    out |= {
        "n_words": total, "unique_words": len(counts), "mean_word_length": over(sum(map(len, words)), total),
        "median_word_length": statistics.median(min(len(w), 1023) for w in words) if words else 0.0,
        "longest_word": max(map(len, words), default=0), "alpha_words": over(alpha, total), "non_alpha_words@dclm": over(total - alpha, total),
        "all_caps_words": over(sum(any(c.isupper() for c in w) and not any(c.islower() or (c.istitle() and not c.isupper()) for c in w) for w in words), total),
        "stop_words@dclm": stops, "stop_words@curator": sum(w in STOP for w in words), "stop_word_share": over(stops, total),
        "unigram_entropy": -sum(c / total * math.log(c / total) for c in counts.values()),
        "symbol_words@curator": over(sum(w in ellipses or len(re.findall("#+", w)) / len(w) > 0.5 for w in words), total),
        "symbol_ratio@dclm": (text.count("#") + dots + text.count(". . .")) / total if total else 1.0,
    }  # fmt: skip
    tokens = [w for word in words for w in spacy_words(word)]
    real = [w for w in tokens if any(not has(c, chars.SYMBOL) for c in w)]
    out |= {
        "n_words@datatrove": len(real), "mean_word_length@datatrove": over(sum(map(len, real)), len(real)),
        "hash_ratio@datatrove": over(text.count("#"), len(tokens)), "ellipsis_ratio@datatrove": over(dots, len(tokens)),
        "alpha_words@datatrove": over(sum(any(c.isalpha() for c in w) for w in tokens), len(tokens)),
        "stop_words@datatrove": len(set(STOP) & set(tokens)), "n_words@dclm": sum(len(unicode_words(w)) for w in words),
    }  # fmt: skip
    raw = [line for line in text.split("\n") if line.strip()]
    lines = [line.strip() for line in raw]
    pages = text.splitlines()
    paragraphs = [p for p in re.split(r"\n{2,}", text.strip()) if p]
    blocks = text.split("\n\n")
    marks = ("...", "[...]", "…", "(...)", "[…]", "-»", "read more..", "read more")
    policy = [any(phrase in low(block) for phrase in POLICY) for block in blocks]
    lorem = low(text).count("lorem ipsum")
    out |= {
        "n_lines": len(lines), "n_paragraphs": len(paragraphs), "n_sentences": sentences(text) if words else 0,
        "n_sentences@rpv2": len(re.findall(r"\b[^.!?]+[.!?]*", text)), "mean_line_length": over(sum(map(len, raw)), len(raw)),
        "bullet_lines@datatrove": over(sum(p.lstrip().startswith(("•", "-")) for p in pages), len(pages)),
        "ellipsis_lines@datatrove": over(sum(p.rstrip().endswith(("...", "…")) for p in pages), len(pages)),
        "bullet_lines@dclm": over(sum(p.startswith(("●", "•", "*", "-")) for p in lines), len(lines)),
        "ellipsis_lines@dclm": over(sum(p.endswith(("...", ". . .", "…")) for p in lines), len(lines)),
        "bullet_lines@curator": over(sum(p.startswith(tuple("•‣⁃⁌⁍∙○●◘◦⦾⦿")) for p in lines), len(lines)),
        "ellipsis_lines@curator": over(sum(low(p).endswith(marks) for p in lines), len(lines)),
        "unended_lines@curator": over(sum(not p.endswith((".", "?", "!", '"', "'")) for p in lines), len(lines)),
        "line_punct@datatrove": over(sum(has(p[-1], chars.TERMINAL) for p in raw), len(raw)),
        "short_lines@datatrove": over(sum(len(p) <= 30 for p in raw), len(raw)),
        "char_dup@datatrove": over(copies(raw)[1], n - text.count("\n")), "list_ratio@datatrove": over(text.count("\n"), len(tokens)),
        "long_lines@mc4": sum(len(p) >= 200 for p in text.split("\n")), "boilerplate@curator": 1.0 if lorem else sum(policy) / len(blocks),
        "policy_lines": sum(any(phrase in low(p) for phrase in POLICY) for p in lines),
        "javascript_lines": sum("javascript" in low(p) for p in lines), "lorem_ipsum": lorem,
    }  # fmt: skip
    return (
        out | repetition(text) | c4(text, "reference") | c4(text, "datatrove") | c4(text, "fineweb") | refinedweb(text)
    )
