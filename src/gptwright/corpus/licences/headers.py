"""The licence that a file names about itself at its beginning: an SPDX tag, or the usual sentences; and whom it names as its author."""

import re

from gptwright.corpus.licences.base import Licence
from gptwright.corpus.licences.names import normalise

HEAD_CHARS = 8192
_TAG = re.compile(
    r"^[^\w\n]{0,40}(?:(?:rem|dnl|comment|copyright[^\n]{0,120}?)[^\w\n]{1,8})?SPDX-License-Identifier:[ \t]*([^\n]{1,300})",
    re.IGNORECASE | re.MULTILINE,
)
_IGNORED = re.compile(r"REUSE-IgnoreStart.*?(?:REUSE-IgnoreEnd|\Z)", re.DOTALL)
_TAG_END = re.compile(r"\s*(?:\*/|-->|\*\)|--\]\]|-\}|[\"';]).*$|[\s*#/]+$")
_COPYRIGHT = re.compile(
    r"^[^\w\n©]{0,40}(?:(?:rem|dnl)\s)?(?:SPDX-FileCopyrightText:|(?:portions )?copyright(?:\s*(?:\(c\)|©|&copy;))?:?|©|\(c\))[ \t]*([^\n]{3,200})",
    re.IGNORECASE | re.MULTILINE,
)
# A notice about the file itself stands before its first line of code; what comes later may be a text that the code is about.
_CODE = re.compile(
    r"^(?:import |from \S+ import|#include|package |def |class |function |const |var |let |using |module |fn |pub |use |namespace |public |static |"
    r"@|\w+ = |\w+\(|<html|<body)",
    re.MULTILINE,
)
_LEADERS = re.compile(r"\n[^\w\n]{1,12}")
_GNU = re.compile(
    r"GNU (?P<kind>Affero|Lesser|Library)? ?General Public Licen[sc]e,?(?: \([A-Z]+\))?(?: as)? published by the Free Software Foundation[,;:]?"
    r"(?P<rest>.{0,160})",
    re.IGNORECASE,
)
_SENTENCES = (
    (r"licensed under the Apache License, Version 2\.0", "Apache-2.0", 0.95),
    (r"subject to the terms of the Mozilla Public License, v\. ?2\.0", "MPL-2.0", 0.95),
    (r"terms of the Eclipse Public License(?: v\.?| -)? ?2\.0", "EPL-2.0", 0.9),
    (r"distributed under the Boost Software License, Version 1\.0", "BSL-1.0", 0.95),
    (r"this is free and unencumbered software released into the public domain", "Unlicense", 0.95),
    (r"(?:placed|released|dedicated) (?:in|into|to) the public domain", "LicenseRef-public-domain", 0.7),
)
_NAMED = re.compile(
    r"(?:licensed|released|distributed|available|published|provided|is|issued) (?:freely )?under (?:the )?"
    r"(?:terms (?:and conditions )?of )?(?:the |an? )?"
    r"(?P<name>[A-Za-z0-9][^\n,;]{1,60}?)(?: licen[sc]e\b(?P<tail>,? v(?:ersion)? ?\d(?:\.\d)?(?:\.0)?)?)",
    re.IGNORECASE,
)
_CC = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licen[sc]es|publicdomain)/[a-z-]+(?:/\d\.\d)?", re.IGNORECASE
)


def header_licence(text: str) -> Licence | None:
    """The licence named at the beginning of a file.

    Args:
        text: the file's beginning; ``HEAD_CHARS`` of it are read.

    Returns:
        With source "spdx-header": confidence 1 for a tag, less for sentences and full texts; None when nothing is named.
        Several tags are licences that all apply.

    Source: SPDX 2.3 annex E, REUSE 3.3 (tags); the notices that the licences' own texts recommend.
    """
    head = _IGNORED.sub(" ", text[:HEAD_CHARS])
    attribution = copyright_lines(head)
    tags = [tag for match in _TAG.finditer(head) if (tag := normalise(_TAG_END.sub("", match[1])))]
    if tags:
        unique = list(dict.fromkeys(tags))
        identity = unique[0] if len(unique) == 1 else normalise(" AND ".join(f"({tag})" for tag in unique))
        return Licence(identity, "spdx-header", 1.0, "SPDX-License-Identifier in the file", attribution)
    if code := _CODE.search(head):
        head = head[: code.start()]
    flat = " ".join(_LEADERS.sub(" ", head).split())
    if found := _gnu(flat):
        return Licence(found, "spdx-header", 0.95, "the notice at the head of the file", attribution)
    for pattern, identity, confidence in _SENTENCES:
        if re.search(pattern, flat, re.IGNORECASE):
            return Licence(identity, "spdx-header", confidence, "the notice at the head of the file", attribution)
    from gptwright.corpus.licences.texts import licences_in

    if whole := licences_in(head):
        return Licence(whole[0].id, "spdx-header", 0.9, "the licence's text at the head of the file", attribution)
    for match in _NAMED.finditer(flat):
        if (named := normalise(f"{match['name']}{match['tail'] or ''}")) and not named.startswith("LicenseRef-"):
            return Licence(named, "spdx-header", 0.7, f"says {match[0][:80]!r}", attribution)
    if (link := _CC.search(flat)) and (named := normalise(link[0])):
        return Licence(named, "spdx-header", 0.6, f"links to {link[0]}", attribution)
    return None


def own_licence(text: str) -> Licence:
    """What a file's beginning says of its licence and its authors; the licence's id is None when it names none."""
    said = header_licence(text)
    return said or Licence(None, "none", 0.0, "the file names none", copyright_lines(text))


def _gnu(flat: str) -> str | None:
    match = _GNU.search(flat)
    if match is None:
        return None
    rest = match["rest"].lower()
    version = re.search(r"version (\d(?:\.\d)?)|v(\d(?:\.\d)?)", rest)
    if version is None:
        return None
    number = version[1] or version[2]
    number = number if "." in number else f"{number}.0"
    family = {"affero": "AGPL", "lesser": "LGPL", "library": "LGPL"}.get((match["kind"] or "").lower(), "GPL")
    later = "later version" in rest or "or later" in rest or "or newer" in rest
    return normalise(f"{family}-{number}-{'or-later' if later else 'only'}")


def copyright_lines(text: str, most: int = 3) -> str | None:
    """Whom a file's beginning names as its authors: its copyright lines, joined by "; "; None when there are none."""
    found: dict[str, None] = {}
    for match in _COPYRIGHT.finditer(text[:HEAD_CHARS]):
        line = re.sub(r"\s*(?:\*/|-->|\*\)).*$", "", match[1]).strip(" .*#/-\t\r")
        line = re.sub(r"[.,;]?\s*all rights reserved\.?.*$", "", line, flags=re.IGNORECASE).strip()
        dated = re.match(r"(?:\(c\)|©)? ?\d{4}", line, re.IGNORECASE) is not None
        # "copyright notice", "copyright holder ...": the licence's own words, not a name; "(c) You must": the third point of a list
        named = line[:1].isupper() and not re.match(r"(?:Licen[sc]e|Notice|Holders?|Owners?)\b", line)
        if dated or (named and not match[0].lstrip(" \t#*/;-").startswith("(")):
            found.setdefault(" ".join(line.split()))
            if len(found) >= most:
                break
    return "; ".join(found) or None
