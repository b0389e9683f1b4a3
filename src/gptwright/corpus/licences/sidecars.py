"""Licences that stand beside the files of a plain folder: LICENSE, REUSE.toml, ``file.license``, a package's manifest."""

from dataclasses import replace
from pathlib import Path

from gptwright.corpus.licences.around import Around, is_licence_text, says_something
from gptwright.corpus.sources.base import Facts, Listing

_LARGEST = 1 << 20
_MOST = 20_000


def with_sidecars(listing: Listing) -> None:
    """Give the files of a folder the licences that stand beside them, and set those files aside that only hold such licences.

    Args:
        listing: of a folder; changed in place. Of single files, packages and gathered sources nothing is changed.
    """
    if listing.kind != "folder":
        return
    evidence = [file for file in listing.files if says_something(file.locator) and file.size_bytes <= _LARGEST][:_MOST]
    if not evidence or all(is_licence_text(file.locator) for file in listing.files):
        return
    texts = {file.locator: text for file in evidence if (text := _read(file.path)) is not None}
    around = Around(texts, source="sidecar")
    kept = []
    for file in listing.files:
        if is_licence_text(file.locator):
            reason = "licence text: read for the licence, no text to learn from"
            listing.put_aside(file.locator, "skipped", reason, file.size_bytes, file.mtime_ns)
            continue
        said = around.of(file.locator)
        if said.id is not None:
            facts = Facts(
                license_id=said.id, license_source="sidecar", license_conf=said.confidence, attribution=said.attribution
            )
            file = replace(file, facts=file.facts | facts)
        kept.append(file)
    listing.files[:] = kept


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
