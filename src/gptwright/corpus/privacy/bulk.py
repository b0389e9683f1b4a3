"""Personal data in a part of a corpus: counts for every document, and the edits that its policy asks for."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from gptwright.core.errors import UserError
from gptwright.corpus.edits import turns
from gptwright.corpus.privacy.find import DETECTORS, NUMBER, Detector, find_all
from gptwright.corpus.privacy.numbers import MAY_BE_CARD, MAY_BE_IBAN, MAY_BE_ID, MAY_BE_PHONE, MAY_BE_V4
from gptwright.corpus.privacy.policy import Policy
from gptwright.corpus.privacy.pseudonyms import Pseudonyms
from gptwright.corpus.privacy.regions import find_regions
from gptwright.corpus.privacy.spans import KINDS, NAME_KINDS, Span, apart, placeholder

EDITS = pa.schema(
    [
        ("doc_row", pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("kind", pa.string()),
        ("replacement", pa.string()),
    ]
)
# Kinds that a number's region says it has enough digits, capitals or full stops for; all others are looked for in any.
_ASKS = {"IBAN": MAY_BE_IBAN, "CARD": MAY_BE_CARD, "NATIONAL_ID": MAY_BE_ID, "IP": MAY_BE_V4, "PHONE": MAY_BE_PHONE}


@cache
def _detectors(bits: int) -> tuple[tuple[int, Detector], ...]:
    """The detectors for a region, the surer ones first, each with its rank."""
    found = []
    for rank, (bit, kind, detect) in enumerate(DETECTORS):
        if bits & bit and (bit != NUMBER or bits & _ASKS.get(kind, NUMBER)):
            found.append((rank, detect))
    return tuple(found)


def scan(
    text: pa.LargeStringArray,
    messages: pa.LargeStringArray | None = None,
    policy: str | Mapping[str, str] | Policy = "mask",
    key: bytes | None = None,
    *,
    scope: pa.Array | None = None,
    names: Callable[[str], Sequence[Span]] | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Find personal data in documents. A conversation is searched turn by turn: nothing spans two turns.

    Args:
        text: documents (N,), for conversations their turns joined by "\\n".
        messages: JSON of a conversation's turns, null for plain text.
        policy: what happens to what is found; see `Policy.of`.
        key: of the project (`load_or_make_key`); needed to pseudonymize.
        scope: (N,) binary, what names the document that a row belongs to (the parts of a long one share it): one thing gets one
            replacement within a scope. By default each text is its own.
        names: finds names in one text, as `names.PresidioNames` does.

    Returns:
        Counts (N rows, int32 columns ``pii_<kind>``), and edits (``doc_row``, ``start``, ``end`` in characters, ``kind``,
        ``replacement``), in order and apart. Nothing found does not mean that a text is free of personal data.

    Raises:
        UserError: replacements are wanted and there is no key.
    """
    rules = Policy.of(policy)
    if rules.needs_key and key is None:
        raise UserError("pseudonyms need a key", fix='Take it from load_or_make_key, or use pii = "mask"')
    kinds = (*KINDS, *NAME_KINDS) if names else KINDS
    counts = {kind: np.zeros(len(text), np.int32) for kind in kinds}
    rows: list[int] = []
    spans_of_edits: list[Span] = []
    replacements: list[str] = []
    for row, spans, content in _documents(text, messages, names):
        given = None
        for span in spans:
            counts[span.kind][row] += 1
            action = rules.action(span.kind)
            if action in ("keep", "drop"):
                continue  # who drops a document needs no edits in it
            if action == "pseudonymize":
                if given is None:
                    assert key is not None
                    given = Pseudonyms(key, _scope(scope, row, content))
                replacement = given.replacement(span, content)
            else:
                replacement = placeholder(span.kind)
            rows.append(row)
            spans_of_edits.append(span)
            replacements.append(replacement)
    edits = pa.table(
        [
            pa.array(rows, pa.int32()),
            pa.array([span.start for span in spans_of_edits], pa.int64()),
            pa.array([span.end for span in spans_of_edits], pa.int64()),
            pa.array([span.kind for span in spans_of_edits], pa.string()),
            pa.array(replacements, pa.string()),
        ],
        schema=EDITS,
    )
    return pa.table({f"pii_{kind.lower()}": counts[kind] for kind in kinds}), edits


def _scope(scope: pa.Array | None, row: int, content: str) -> bytes:
    named = scope[row].as_py() if scope is not None else None
    return named if isinstance(named, bytes) else blake2b(content.encode(), digest_size=16).digest()


def _documents(
    text: pa.LargeStringArray, messages: pa.LargeStringArray | None, names: Callable[[str], Sequence[Span]] | None
) -> Iterator[tuple[int, list[Span], str]]:
    """Row, spans and text of each document in which something was found, in order."""
    regions = find_regions(text)
    heads = np.flatnonzero(np.diff(regions.row, prepend=-1))
    tails = np.append(heads, len(regions.row))[1:]
    at = {int(regions.row[head]): (head, tail) for head, tail in zip(heads.tolist(), tails.tolist(), strict=True)}
    for row in range(len(text)) if names else at:
        content = text[row].as_py()
        if content is None:
            continue
        head, tail = at.get(row, (0, 0))
        talk = messages[row].as_py() if messages is not None else None
        if talk is not None:
            spans = _in_turns(json.loads(talk), regions.start[head:tail], names)
        else:
            found = _in_regions(
                content,
                regions.start[head:tail].tolist(),
                regions.end[head:tail].tolist(),
                regions.bit[head:tail].tolist(),
            )
            spans = apart([*found, *names(content)]) if names else found
        if spans:
            yield row, spans, content


def _in_regions(text: str, starts: list[int], ends: list[int], bits: list[int]) -> list[Span]:
    found: list[tuple[int, Span]] = []
    for start, end, bit in zip(starts, ends, bits, strict=True):
        for rank, detect in _detectors(bit):
            for span in detect(text, start, end):
                found.append((rank, span))
    if len(found) < 2:
        return [span for _, span in found]
    found.sort(key=lambda item: (item[0], item[1].start))
    return apart(span for _, span in found)


def _in_turns(
    talk: list[dict[str, str]],
    places: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    names: Callable[[str], Sequence[Span]] | None,
) -> list[Span]:
    found: list[Span] = []
    for start, turn in turns(talk):
        # What is no candidate in the joined text is none in a turn either: no region crosses the end of a line.
        first = np.searchsorted(places, start)
        touched = first < len(places) and places[first] <= start + len(turn)
        spans = find_all(turn) if touched else []
        if names:
            spans = apart([*spans, *names(turn)])
        found += [Span(span.start + start, span.end + start, span.kind) for span in spans]
    return found
