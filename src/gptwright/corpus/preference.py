"""Which of several copies a corpus prefers: the one under the more open licence, then the source named first, the better, longer, older."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.corpus.copies import mapped
from gptwright.corpus.decide import Part
from gptwright.corpus.dedup.priority import Priority, scores
from gptwright.corpus.licences.expressions import alternatives

# Ranks of licences by what they ask of whoever uses the text; the first that fits counts. Of alternatives the most open one counts.
_RANKS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0, ("CC0-1.0", "Unlicense", "0BSD", "MIT-0", "PDDL-1.0", "LicenseRef-public-domain", "LicenseRef-own", "BlueOak-")),
    (6, ("CC-BY-NC", "CC-BY-ND", "LicenseRef-", "PolyForm-Noncommercial")),
    (4, ("CC-BY-SA-", "GFDL-", "GPL-", "AGPL-", "ODbL-")),
    (3, ("LGPL-", "MPL-", "EPL-", "CDDL-", "EUPL-")),
    (2, ("CC-BY-", "OGL-", "ODC-By-")),
)  # fmt: skip
_PERMISSIVE, _UNKNOWN = 1, 7


def openness(license_id: str | None) -> int:
    """Rank of a licence expression: 0 public domain and the person's own, 1 permissive, 2 attribution, 3 and 4 copyleft, 6 restricted,
    7 unknown. Of ``A OR B`` the more open, of ``A AND B`` the less."""
    if license_id is None:
        return _UNKNOWN
    try:
        return min(max(map(_rank, together)) for together in alternatives(license_id))
    except (UserError, ValueError):
        return _rank(license_id)


def _rank(license_id: str) -> int:
    return next((rank for rank, starts in _RANKS if license_id.startswith(starts)), _PERMISSIVE)


def preference(parts: Sequence[Part], sources: Sequence[str], quality: str | None, folder: Path) -> Priority:
    """The preference of all documents, on disk.

    Args:
        parts: docs files with their signals.
        sources: names in order of preference.
        quality: a signal whose higher values are better, from 0 to 1; None for none.
        folder: where a file of 8 bytes a document goes. Between equals the first in the corpus's order is preferred.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks: dict[str | None, int] = {}
    order: Mapping[str, int] = {name: number for number, name in enumerate(sources)}
    with open(folder / "preference.score", "wb") as score:
        for part in parts:
            docs = pq.read_table(part.docs, columns=["license_id", "published_at"])
            names = ["n_bytes_edited", *([quality] if quality else [])]
            signals = pq.read_table(part.signals, columns=names)
            licences = docs["license_id"].to_pylist()
            for one in set(licences) - ranks.keys():
                ranks[one] = openness(one)
            days = pc.cast(pc.cast(docs["published_at"], "date32"), "int32")
            packed = scores(
                openness=np.array([ranks[one] for one in licences], np.int64),
                source=np.full(len(licences), order.get(part.source, len(order))),
                quality=signals[quality].to_numpy() if quality else None,
                length=signals["n_bytes_edited"].to_numpy(),
                date=np.asarray(pc.fill_null(days, -1)),
            )
            score.write(packed.astype("<u8").tobytes())
    score_of = mapped(folder / "preference.score", "<u8")
    return Priority(score_of, np.broadcast_to(np.uint64(0), len(score_of)))
