"""MediaWiki markup to plain text: templates, tables, notes, comments, files and categories go; links become their labels.

One pass over the text with a stack, so that neither nesting nor brackets that nobody closes cost more than their length, and a bracket that
is left open swallows nothing.
"""

import html
import re
from collections.abc import Collection

# What stands between these tags is no text of the article.
_DROPPED = frozenset(
    {
        "ref", "gallery", "timeline", "score", "graph", "templatedata", "templatestyles", "imagemap", "mapframe", "maplink", "hiero",
        "includeonly", "section", "categorytree", "inputbox", "dynamicpagelist", "listing", "rss", "chart", "phonos", "style", "script",
    }
)  # fmt: skip
_LITERAL = frozenset(
    ["nowiki", "pre", "code", "source", "syntaxhighlight", "math", "chem", "ce", "tt", "kbd", "samp", "var"]
)  # markup in it is none
_MATH = frozenset(("math", "chem", "ce"))
_OPENING = re.compile(rf"<!--|<({'|'.join(sorted(_DROPPED | _LITERAL))})\b([^<>]*)>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:abbr|b|bdi|bdo|big|blockquote|center|cite|data|dd|del|dfn|div|dl|dt|em|font|h[1-6]|i|ins|li|mark|noinclude|onlyinclude|ol|p|poem|q|"
    r"rb|references|rp|rt|rtc|ruby|s|small|span|strike|strong|sub|sup|table|tbody|td|tfoot|th|thead|time|tr|translate|tvar|u|ul|wbr|"
    r"nowiki|pre|code|source|syntaxhighlight|math|chem|ce|tt|kbd|samp|var|ref|gallery|section|indicator|languages|templatestyles)\b[^<>]*>",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<(?:br|hr)\b[^<>]*>", re.IGNORECASE)
_TOKEN = re.compile(r"\{\{+|\}\}+|\[\[|\]\]|^[ :]*\{\||^[ ]*\|\}(?!\})", re.MULTILINE)
_EXTERNAL = re.compile(r"\[(?:[a-z]{3,6}:)?//[^\s\[\]]+(?:[ \t]+([^\[\]\n]*))?\]", re.IGNORECASE)
_QUOTES = re.compile(r"'{2,5}")
_MAGIC = re.compile(r"__[A-Z]{4,30}__")
_HEADING = re.compile(r"(={1,6})(.+?)\1?[ \t]*$")
_ITEM = re.compile(r"([*#:;]+)[ \t]*")
_EMPTY_BRACKETS = re.compile(r"[ \t]?\([ \t,;:–-]*\)")
_LEADING = re.compile(r"\([ \t]*[,;:]+[ \t]*")
_SPACES = re.compile(r"[ \t\u00a0]{2,}")
_LANGUAGE_LINK = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,12})?:|simple:")
_MARKS = re.compile("[\ue000-\ue002]")
_DEEPEST_LINK = 6  # an image's caption holds links, and theirs hold no more
_EMPTY_KINDS = {"{{": 0, "[[": 0, "{|": 0}


def plain_text(markup: str, dropped_prefixes: Collection[str] = ("file", "image", "category")) -> str:
    """The text of an article.

    Args:
        markup: wikitext of one page.
        dropped_prefixes: lower-case namespaces whose links show a picture or file the page; a wiki's own names come from its siteinfo.

    Returns:
        Paragraphs, headings and list items ("- ") on lines of their own. Headings with nothing under them are left out.

    Source: mediawiki.org, Help:Formatting, Help:Links, Help:Tables, Help:Templates.
    """
    literals: list[str] = []
    text = _without_blocks(_MARKS.sub("", markup), literals)
    text = _without_brackets(text, frozenset(dropped_prefixes))
    text = _BREAK.sub("\n", text)
    text = _TAG.sub("", text)
    text = _EXTERNAL.sub(lambda match: match[1] or "", text)
    text = _MAGIC.sub("", _QUOTES.sub("", text))
    text = html.unescape(text)
    text = _LEADING.sub("(", _EMPTY_BRACKETS.sub("", text))
    text = _lines(text)
    return _with_literals(text, literals).strip()


def _without_blocks(text: str, literals: list[str]) -> str:
    """Drop comments and tags whose content is no text; put literal content aside and a mark in its place."""
    kept: list[str] = []
    lower = text.lower()
    at = 0
    unclosed: set[str] = (
        set()
    )  # names that have no closing tag from here on: looking again would cost the rest of the page each time
    while match := _OPENING.search(text, at):
        kept.append(text[at : match.start()])
        if match[1] is None:
            end = text.find("-->", match.end())
            at = len(text) if end < 0 else end + 3
            continue
        name = match[1].lower()
        at = match.end()
        if match[2].endswith("/"):
            continue
        end = -1 if name in unclosed else lower.find(f"</{name}", at)
        if end < 0:
            unclosed.add(name)
            continue
        if name in _LITERAL:
            kept.append(_mark(text[at:end], name, literals))
        close = text.find(">", end)
        at = len(text) if close < 0 else close + 1
    kept.append(text[at:])
    return "".join(kept)


def _mark(content: str, name: str, literals: list[str]) -> str:
    content = html.unescape(content)
    if name in _MATH:
        content = f"${' '.join(content.split())}$" if content.strip() else ""
    elif name in ("pre", "source", "syntaxhighlight"):
        content = "\n" + content.strip("\n") + "\n"
    literals.append(_MARKS.sub("", content))
    return f"\ue000{len(literals) - 1}\ue001"


def _with_literals(text: str, literals: list[str]) -> str:
    if not literals:
        return text
    return re.sub("\ue000(\\d+)\ue001", lambda match: literals[int(match[1])], text)


def _without_brackets(text: str, dropped: frozenset[str]) -> str:
    """Drop templates and tables; put links' labels in their places."""
    out: list[str] = []
    stack: list[tuple[str, int]] = []  # what is open, and where in ``out`` it began
    n_open = dict(_EMPTY_KINDS)
    at = 0

    def close(kind: str) -> int | None:
        """Take the innermost open one of a kind off the stack, with all that was left open in it; where it began."""
        if not n_open[kind]:
            return None
        while True:
            found, start = stack.pop()
            n_open[found] -= 1
            if found == kind:
                return start

    for match in _TOKEN.finditer(text):
        if match.start() > at:
            out.append(text[at : match.start()])
        at = match.end()
        token = match[0]
        if token[0] == "{" and token[1] == "{":
            for _ in range(len(token) // 2):
                stack.append(("{{", len(out)))
            n_open["{{"] += len(token) // 2
        elif token[0] == "}":
            for _ in range(len(token) // 2):
                if (start := close("{{")) is not None:
                    del out[start:]
        elif token == "[[":
            if n_open["[["] < _DEEPEST_LINK:
                stack.append(("[[", len(out)))
                n_open["[["] += 1
        elif token == "]]":
            if (start := close("[[")) is not None:
                label = _label("".join(out[start:]), dropped)
                del out[start:]
                out.append(label)
        elif token.endswith("{|"):
            stack.append(("{|", len(out)))
            n_open["{|"] += 1
        elif (start := close("{|")) is not None:
            del out[start:]
    out.append(text[at:])
    return "".join(out)


def _label(link: str, dropped: frozenset[str]) -> str:
    """What a link shows: its label, its target, or nothing."""
    target, mark, label = link.partition("|")
    target = target.strip()
    prefix = target.partition(":")[0].strip().lower().replace("_", " ") if ":" in target else ""
    if prefix and prefix in dropped:
        return ""
    if mark:
        shown = label.rpartition("|")[2] if prefix else label
        return shown if shown.strip() else re.sub(r"\s*[(,].*$", "", target.rpartition(":")[2])
    if _LANGUAGE_LINK.match(target):
        return ""
    return target.removeprefix(":")


def _lines(text: str) -> str:
    """Headings and lists as plain lines; what is left of tables and rules goes, and so do headings with nothing under them."""
    out: list[str] = []
    waiting: list[tuple[int, str]] = []  # headings that had no text yet
    for raw in text.split("\n"):
        line = _SPACES.sub(" ", raw.strip())
        if line.startswith("=") and len(line) < 500 and (heading := _HEADING.match(line)):
            level = len(heading[1])
            while waiting and waiting[-1][0] >= level:
                waiting.pop()
            waiting.append((level, heading[2].strip(" =")))
            continue
        if line.startswith(("|", "!", "{|", "----")):
            continue
        if item := _ITEM.match(line):
            line = line[item.end() :].strip()
            bullets = item[1].count("*") + item[1].count("#")
            if line and bullets:
                line = "  " * min(bullets - 1, 8) + "- " + line
        if not line:
            if out and out[-1]:
                out.append("")
            continue
        for _, title in waiting:
            if out and out[-1]:
                out.append("")
            out += [title, ""]
        waiting = []
        out.append(line)
    return "\n".join(out)
