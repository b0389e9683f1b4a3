"""What publishers say about training on their texts: each signal with its evidence, as bits that a rule can read.

Signals are read from HTTP headers, HTML metas, robots.txt and /.well-known/tdmrep.json. Where two disagree, the most restrictive wins:
one that forbids is never undone by one that allows. That several are drafts or customs and no law is said in ``EXPLAINED``.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntFlag
from typing import Any

from gptwright.corpus.sources.agents import TOKENS
from gptwright.corpus.sources.base import Facts
from gptwright.corpus.sources.urls import matches, path_of


class OptOut(IntFlag):
    """A signal that was seen, as a bit of the column ``optout``. The numbers are kept in files: they never change."""

    ROBOTS_SELF = 1
    ROBOTS_AI = 2
    NOAI = 4
    NOIMAGEAI = 8
    NOINDEX = 16
    TDM = 32
    CONTENT_USAGE = 64
    CONTENT_SIGNAL = 128
    NOARCHIVE = 256


EXPLAINED = {
    OptOut.ROBOTS_SELF: "robots.txt forbids this crawler, by its name or as any (RFC 9309)",
    OptOut.ROBOTS_AI: "robots.txt forbids crawlers that gather training data, by their names",
    OptOut.NOAI: "noai or noml in X-Robots-Tag or a meta (custom)",
    OptOut.NOIMAGEAI: "noimageai in X-Robots-Tag or a meta (custom); it is about images and drops no text",
    OptOut.NOINDEX: "noindex or none in X-Robots-Tag or a meta",
    OptOut.TDM: "text and data mining reserved by TDMRep (W3C community group report of 10 May 2024)",
    OptOut.CONTENT_USAGE: "Content-Usage refuses training (IETF AIPREF, draft vocab-08 and attach-04)",
    OptOut.CONTENT_SIGNAL: "Content-Signal refuses training (contentsignals.org)",
    OptOut.NOARCHIVE: "noarchive in X-Robots-Tag or a meta; one search engine reads it as no training, recorded only",
}
# Under ``consent.policy = "respect"`` a text with any of these is dropped. The others are not about training on text.
DROPS = (
    OptOut.ROBOTS_SELF
    | OptOut.ROBOTS_AI
    | OptOut.NOAI
    | OptOut.NOINDEX
    | OptOut.TDM
    | OptOut.CONTENT_USAGE
    | OptOut.CONTENT_SIGNAL
)
RULE = "consent.opt_out"
PERMISSION = 0  # a signal that allows is kept as evidence and sets no bit

_TAGS = {
    "noai": OptOut.NOAI,
    "noml": OptOut.NOAI,
    "noimageai": OptOut.NOIMAGEAI,
    "noindex": OptOut.NOINDEX,
    "none": OptOut.NOINDEX,
    "noarchive": OptOut.NOARCHIVE,
}
# "train-ai" is the draft's word today; the others stood in earlier drafts and are still served.
_USAGE = frozenset({"train-ai", "train-genai", "genai", "ai", "ai-train", "tdm", "all", "bots"})
_SIGNAL = frozenset({"ai-train"})
_LONGEST = 300  # characters of evidence


@dataclass(frozen=True)
class Signal:
    """One statement of a publisher.

    ``where`` is one of header, meta, robots.txt, tdmrep.json; ``place`` the URL of the document that says it; ``at`` when it was read.
    """

    bit: int
    where: str
    text: str
    place: str | None = None
    at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """As evidence, the form that ``Facts.consent`` holds."""
        name = OptOut(self.bit).name if self.bit else "PERMISSION"
        out: dict[str, Any] = {"signal": str(name).lower(), "bit": self.bit, "where": self.where, "text": self.text}
        if self.place:
            out["url"] = self.place
        if self.at:
            out["at"] = self.at.isoformat()
        return out


def opted_out(bits: int) -> bool:
    """Whether a text's signals drop it, unless the source overrides them."""
    return bool(bits & DROPS)


def names(bits: int) -> list[str]:
    """The signals in a value of the column ``optout``, such as ``["robots_ai", "tdm"]``."""
    return [str(bit.name).lower() for bit in OptOut if bits & bit]


def facts_of(signals: Iterable[Signal], former: Iterable[Mapping[str, Any]] = ()) -> Facts:
    """Signals as facts of a document.

    Args:
        signals: what was seen now.
        former: evidence from before. A signal that was there keeps the time it was first seen, so that seeing it again changes nothing.
    """
    first = {_same(one): one.get("at") for one in former}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    bits = 0
    for signal in signals:
        evidence = signal.to_json()
        key = _same(evidence)
        if first.get(key):
            evidence["at"] = first[key]
        found.setdefault(key, evidence)
        bits |= signal.bit
    ordered = sorted(found.values(), key=lambda one: (one["where"], one["bit"], one["text"], one.get("url", "")))
    return Facts(optout=int(bits), consent=tuple(ordered))


def _same(evidence: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(evidence.get(name) for name in ("bit", "where", "text", "url"))


def from_page(evidence: Iterable[Mapping[str, Any]]) -> list[Signal]:
    """The signals in kept evidence that the page itself gave, to be joined with what its site says now."""
    out = []
    for one in evidence:
        if one.get("where") in ("header", "meta"):
            at = datetime.fromisoformat(one["at"]) if one.get("at") else None
            out.append(Signal(int(one["bit"]), one["where"], one["text"], one.get("url"), at))
    return out


def header_signals(headers: Iterable[tuple[str, str]], url: str | None, at: datetime | None = None) -> list[Signal]:
    """What an answer's headers say: X-Robots-Tag, TDMRep, Content-Usage, Content-Signal.

    Args:
        headers: names and values.
        url: of the page, which becomes the evidence's place.
        at: when it was asked for.
    """
    found: list[Signal] = []
    for key, value in headers:
        name = key.lower()
        if name == "x-robots-tag":
            found += _tags(value, "header", f"{key}: {value}", None)
        elif name == "tdm-reservation":
            found += _reservation(value, "header", f"{key}: {value}")
        elif name == "content-usage":
            found += _preference(value, _USAGE, OptOut.CONTENT_USAGE, "header", f"{key}: {value}")
        elif name == "content-signal":
            found += _preference(value, _SIGNAL, OptOut.CONTENT_SIGNAL, "header", f"{key}: {value}")
    return [replace(signal, place=url, at=at) for signal in found]


def meta_signals(metas: Iterable[tuple[str, str]], url: str | None, at: datetime | None = None) -> list[Signal]:
    """What a page's metas say.

    Args:
        metas: pairs of ``name`` and ``content``.
        url: of the page.
        at: when it was asked for.
    """
    found: list[Signal] = []
    for name, content in metas:
        key = name.strip().lower()
        text = f'<meta name="{name}" content="{content}">'
        if key in ("robots", "gptwright") or key in _AGENTS:
            found += _tags(content, "meta", text, key)
        elif key == "tdm-reservation":
            found += _reservation(content, "meta", text)
        elif key == "content-usage":
            found += _preference(content, _USAGE, OptOut.CONTENT_USAGE, "meta", text)
    return [replace(signal, place=url, at=at) for signal in found]


_AGENTS = frozenset(token.lower() for token in TOKENS)


def _tags(value: str, where: str, text: str, agent: str | None) -> Iterator[Signal]:
    """Robots tags. A header may name an agent first (``gptbot: noindex``), which holds for what follows; others' agents say nothing."""
    about = agent
    for piece in re.split(r"[,;]", value.lower()):
        token = piece.strip()
        if ":" in token and not token.startswith(("max-", "unavailable_after")):
            about, _, token = (part.strip() for part in token.partition(":"))
        if about not in (None, "robots", "*", "gptwright") and about not in _AGENTS:
            continue
        bit = _TAGS.get(token)
        if bit is None:
            continue
        # noindex for one who gathers training data is an opt-out from that, not from being found.
        ours = about in (None, "robots", "*", "gptwright")
        yield Signal(int(bit if ours or bit != OptOut.NOINDEX else OptOut.NOAI), where, text[:_LONGEST])


def _reservation(value: str, where: str, text: str) -> Iterator[Signal]:
    value = value.strip().strip('"')
    if value == "1":
        yield Signal(int(OptOut.TDM), where, text[:_LONGEST])
    elif value == "0":
        yield Signal(PERMISSION, where, text[:_LONGEST])


def _preference(value: str, words: frozenset[str], bit: OptOut, where: str, text: str) -> Iterator[Signal]:
    """A dictionary such as ``search=y, train-ai=n``. Any refusal of training counts, spelled with care or without.

    Source: draft-ietf-aipref-vocab-08 section 5 (RFC 9651 dictionary; y, n); contentsignals.org (yes, no).
    """
    said: dict[str, bool] = {}
    for piece in value.split(","):
        key, mark, what = piece.partition(";")[0].partition("=")
        if mark and key.strip().lower() in words:
            answer = what.strip().strip('"').lower()
            refused = answer in ("n", "no", "?0", "false", "0")
            if refused or answer in ("y", "yes", "?1", "true", "1"):
                said[key.strip().lower()] = refused or said.get(key.strip().lower(), False)
    if said:
        yield Signal(int(bit) if any(said.values()) else PERMISSION, where, text[:_LONGEST])


def robots_preferences(
    text: str, url: str, place: str, agents: Iterable[str], at: datetime | None = None
) -> list[Signal]:
    """Content-Usage and Content-Signal lines of a robots.txt that speak about a page.

    Args:
        text: the file.
        url: of the page.
        place: of the file.
        agents: tokens in lower case whose groups are read, ``*`` among them. Lines before any group speak to all.
        at: when the file was read.

    Source: draft-ietf-aipref-attach-04 section 3: the longest path that matches, in each group; of equally long ones all.
    """
    wanted = frozenset(agents)
    path = path_of(url)
    found: list[Signal] = []
    for group, lines in _groups(text):
        if group and not wanted & group:
            continue
        for name, words, bit in (
            ("content-usage", _USAGE, OptOut.CONTENT_USAGE),
            ("content-signal", _SIGNAL, OptOut.CONTENT_SIGNAL),
        ):
            best: list[tuple[int, str, str]] = []
            for key, value, line in lines:
                if key == name:
                    pattern, rest = _pathed(value)
                    if matches(pattern, path):
                        best.append((len(pattern), rest, line))
            longest = max((length for length, _, _ in best), default=0)
            whom = ", ".join(sorted(group)[:5]) or "*"
            for length, rest, line in best:
                if length == longest:
                    found += _preference(rest, words, bit, "robots.txt", f"User-agent: {whom} / {line}")
    return [replace(signal, place=place, at=at) for signal in found]


def named_agents(text: str) -> frozenset[str]:
    """The agents that have a group of their own in a robots.txt, in lower case."""
    return frozenset(agent for group, _ in _groups(text) for agent in group)


def _pathed(value: str) -> tuple[str, str]:
    if not value.startswith("/"):
        return "", value
    pattern, _, rest = value.replace("\t", " ").partition(" ")
    return pattern, rest.strip()


def _groups(text: str) -> list[tuple[frozenset[str], list[tuple[str, str, str]]]]:
    """Groups of a robots.txt: their agents, and lines as (name, value, the line). The first group has no agents."""
    groups: list[tuple[set[str], list[tuple[str, str, str]]]] = [(set(), [])]
    open_group = False
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        name, mark, value = line.partition(":")
        key = name.strip().lower()
        if not mark:
            continue
        if key in ("user-agent", "useragent", "user agent"):
            if not open_group:
                groups.append((set(), []))
            groups[-1][0].add(value.strip().lower())
            open_group = True
        elif key not in ("sitemap", "host"):
            groups[-1][1].append((key, value.strip(), line))
            open_group = False
    return [(frozenset(agents), lines) for agents, lines in groups]


def tdmrep_signals(text: str, url: str, place: str, at: datetime | None = None) -> list[Signal]:
    """What a tdmrep.json says about a page: its first rule whose location matches.

    Source: TDMRep final report, section "TDM File on the Origin Server".
    """
    try:
        rules = json.loads(text)
    except (ValueError, RecursionError):
        return []
    for rule in rules if isinstance(rules, list) else [rules]:
        if not isinstance(rule, dict) or not isinstance(rule.get("location"), str):
            continue
        if matches(rule["location"] or "/", path_of(url)):
            value = str(rule.get("tdm-reservation"))
            shown = json.dumps(rule, ensure_ascii=False)
            return [replace(signal, place=place, at=at) for signal in _reservation(value, "tdmrep.json", shown)]
    return []
