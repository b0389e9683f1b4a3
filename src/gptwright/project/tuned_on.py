"""What ``[finetune] data`` holds, as sources like those of the corpus: their licence, whom to name, their files; for the ledger, for cards
and for the policy that refuses what an intent does not allow.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.hashing import b2_file
from gptwright.core.ledger import TUNING, FileRow, Ledger, SourceRow
from gptwright.core.progress import say
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.licences.sidecars import with_sidecars
from gptwright.corpus.licences.table import LicenceRow
from gptwright.corpus.sources.kinds import list_source, request_for
from gptwright.govern.policy import check, terms_of
from gptwright.project.examples import data_files, read_examples

if TYPE_CHECKING:
    from gptwright.project.project import Project
    from gptwright.project.settings import FinetuneStep


def tuning_sources(project: "Project") -> tuple[dict[str, dict[str, Any]], dict[str, list[FileRow]]]:
    """The data of all steps: by name, what a dataset's record says of a source; and the files of each.

    A licence is what ``[finetune] license`` says; else that of the source of the corpus in whose folder the data lie; else what a file
    beside them says; else it is not known.
    """
    found: dict[str, dict[str, Any]] = {}
    files: dict[str, list[FileRow]] = {}
    for step in project.settings.finetune.chain():
        if step.data is None or f"{TUNING}{step.data}" in found:
            continue
        name = f"{TUNING}{step.data}"
        config = _config(project, step)
        listing = list_source(name, config, project.root)
        with_sidecars(listing)
        rows = [_file_row(name, place, path, step) for place, path in data_files(project, step)]
        files[name] = rows
        found[name] = {
            "kind": "finetune",
            "uri": step.data,
            "license": listing.licence.id,
            "license_source": listing.licence.source,
            "attribution": listing.licence.attribution,
            "contains_personal_data": config.contains_personal_data,
            "pii_policy": "none",  # what a person writes for fine-tuning is learnt as it stands
            "kept": sum(row.documents for row in rows),
            "bytes": sum(row.size_bytes for row in rows),
            "files": {"ok": len(rows), "unreadable": 0},
        }
    return found, files


def note_sources(project: "Project", ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Enter the data of fine-tuning into the ledger, and hold them against the project's intent, before anything is trained.

    Returns:
        What the model's record is to say of them.

    Raises:
        Refused: a licence does not allow what the project is for.
    """
    found, files = tuning_sources(project)
    terms = terms_of(found)
    if found:
        for warning in check(terms.rows, project.settings.project.intent, terms.sizes).warnings:
            say(f"finetune: {warning}")
    rows = [
        SourceRow(
            name, kept["kind"], kept["uri"], kept["license"], kept["license_source"], kept["attribution"],
            kept["contains_personal_data"], kept["pii_policy"],
        )
        for name, kept in found.items()
    ]  # fmt: skip
    ledger.set_sources(rows, TUNING)
    for name, own in files.items():
        ledger.set_files(name, own)
    return found


def licence_rows(ledger: Ledger) -> list[LicenceRow]:
    """The data of fine-tuning by licence, from the ledger, for ``data licenses``."""
    rows = []
    for source in ledger.sources():
        if source.name.startswith(TUNING):
            files = ledger.files(source.name)
            count, size = sum(file.documents for file in files), sum(file.size_bytes for file in files)
            names = [source.attribution] if source.attribution else []
            rows.append(
                LicenceRow(source.license, source.name, count, size, {source.license_source: count}, names, len(names))
            )
    return rows


def _config(project: "Project", step: "FinetuneStep") -> SourceConfig:
    """The terms of a step's data, as a source's."""
    assert step.data is not None
    place = (project.root / step.data).resolve()
    around: SourceConfig | None = None
    for name, source in project.settings.corpus.sources.items():
        folder = (project.root / Path(source.uri).expanduser()).resolve()
        if not request_for(name, source, project.root).scheme and place.is_relative_to(folder):
            around = source
    personal = step.contains_personal_data
    return SourceConfig(
        uri=step.data,
        license=step.license or (around.license if around else None),
        attribution=step.attribution or (around.attribution if around else None),
        contains_personal_data=around.contains_personal_data if around and personal == "unknown" else personal,
    )


def _file_row(name: str, place: str, path: Path, step: "FinetuneStep") -> FileRow:
    info = path.stat()
    count = len(read_examples(step, path))
    return FileRow(name, place, "ok", None, info.st_size, info.st_mtime_ns, b2_file(path), count)
