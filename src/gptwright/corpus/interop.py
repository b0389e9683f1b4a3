"""The corpus in the forms of other tools: datatrove's JSONL and parquet, and parquet as the Hugging Face Hub lays it out.

Each document keeps its id, its place and its licence. What is written can be read back as a source: the rows are texts or conversations
with ``license``, ``url`` and ``title`` beside them.
"""

import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_dir
from gptwright.corpus.licences.table import LicenceRow, licence_table
from gptwright.corpus.reading import PartEdits, Split, chosen_rows, document_of, manifest
from gptwright.corpus.tables import part_path

Format = Literal["datatrove-jsonl", "datatrove-parquet", "hf-parquet"]
FORMATS: tuple[Format, ...] = ("datatrove-jsonl", "datatrove-parquet", "hf-parquet")
FILE_BYTES = 256 << 20  # of text in one file
_BATCH = 512
_COLUMNS = [
    "doc_uid", "norm_id", "source", "locator", "text", "messages", "license_id", "license_source", "license_conf", "attribution", "url",
    "title", "lang_declared", "published_at",
]  # fmt: skip
_FACTS = [
    ("source", pa.string()), ("locator", pa.string()), ("url", pa.string()), ("title", pa.string()), ("language", pa.string()),
    ("published_at", pa.string()), ("license", pa.string()), ("license_source", pa.string()), ("license_conf", pa.float32()),
    ("attribution", pa.string()), ("split", pa.string()),
]  # fmt: skip
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_HUB_SPLITS = {"train": "train", "heldout": "test"}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"), (10**8, "10M<n<100M"))  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What was written: files relative to the folder, documents, and bytes of UTF-8 text."""

    files: tuple[str, ...]
    documents: int
    bytes: int


def export(
    corpus_dir: Path, out: Path, format: Format = "hf-parquet", split: Split | None = None, *, name: str | None = None
) -> Exported:
    """Write the kept documents, with their edits made, into a folder that appears when all is written.

    Args:
        corpus_dir: work/corpus, built to its end.
        out: the folder; an empty one or a former export is replaced, nothing else is.
        format: "datatrove-jsonl" (``00000.jsonl.gz``: text, id, metadata), "datatrove-parquet" (``00000.parquet``, the same columns), or
            "hf-parquet" (``data/train-00000-of-00001.parquet`` with a column a fact, and README.md, the data set's card).
        split: "train", "heldout" or None for both. On the hub the held-out part is called "test".
        name: what the card calls the data set; None is the folder's name.

    Raises:
        UserError: the format is not known, the folder holds something else, or there is no such document.
    """
    if format not in FORMATS:
        raise UserError(f"the format {format!r} is not known", fix=f"Name one of {', '.join(FORMATS)}")
    _check_folder(out)
    about = manifest(corpus_dir)
    chats = _has_chats(corpus_dir)
    done = _Written([], 0, 0)
    with atomic_dir(out) as folder:
        for part in ("train", "heldout"):
            if split in (None, part):
                _write_split(corpus_dir, folder, format, part, chats, done)
        if not done.documents:
            raise UserError("the corpus has no such document", where=str(corpus_dir), fix="Leave the split out")
        if format == "hf-parquet":
            _number_files(folder, done)
            (folder / "README.md").write_text(_card(corpus_dir, about, done, name or out.name), encoding="utf-8")
        (folder / _MARK).write_text(json.dumps({"format": format, "corpus": about["hash"]}), encoding="utf-8")
    return Exported(tuple(done.files), done.documents, done.bytes)


_MARK = ".gptwright-export.json"


@dataclass
class _Written:
    files: list[str]
    documents: int
    bytes: int


def _check_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).exists())):
        raise UserError(f"{out} holds something else", fix="Name a new folder")


def _has_chats(corpus_dir: Path) -> bool:
    return any(
        pc.any(
            pc.is_valid(pq.read_table(part_path(corpus_dir, "signals", number), columns=["n_turns"])["n_turns"])
        ).as_py()
        for number in range(manifest(corpus_dir)["parts"])
    )


def _rows(corpus_dir: Path, split: str) -> Iterator[dict[str, Any]]:
    """Documents of a split: text with edits, messages or None, id, and their facts."""
    for number in range(manifest(corpus_dir)["parts"]):
        decisions = pq.read_table(part_path(corpus_dir, "decisions", number), columns=["verdict", "split"])
        wanted = pc.and_(
            pc.equal(decisions["verdict"], "keep"), pc.fill_null(pc.equal(decisions["split"], split), False)
        )
        chosen = wanted.to_numpy()
        if not chosen.any():
            continue
        edits = PartEdits(corpus_dir, number)
        for row, values in chosen_rows(corpus_dir, number, chosen, _COLUMNS):
            document = document_of(values, edits.of(row))
            made = values["published_at"]
            yield {
                "id": document.uid,
                "text": document.text,
                "messages": document.messages,
                "source": values["source"],
                "locator": values["locator"],
                "url": values["url"],
                "title": values["title"],
                "language": values["lang_declared"],
                "published_at": made.isoformat() if made is not None else None,
                "license": values["license_id"],
                "license_source": values["license_source"],
                "license_conf": values["license_conf"],
                "attribution": values["attribution"],
                "split": split,
            }


class _Sink(Protocol):
    def add(self, row: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class _JsonLines:
    """datatrove's rows: facts under "metadata", and the messages beside the text, which datatrove puts there when it reads."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = open(path, "wb")
        self._packed = gzip.GzipFile("", "wb", 6, self._file, mtime=0)
        self._out = io.BufferedWriter(self._packed, 1 << 20)

    def add(self, row: dict[str, Any]) -> None:
        facts = {key: row[key] for key, _ in _FACTS if row[key] is not None}
        if "license_conf" in facts:
            facts["license_conf"] = round(float(facts["license_conf"]), 4)
        value: dict[str, Any] = {"text": row["text"], "id": row["id"], "metadata": facts}
        if row["messages"] is not None:
            value["messages"] = row["messages"]
        self._out.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def close(self) -> None:
        self._out.close()
        self._packed.close()
        self._file.close()


class _Parquet:
    """Rows of one schema, a batch at a time."""

    def __init__(self, path: Path, schema: pa.Schema, shape: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._schema, self._shape = schema, shape
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, write_page_index=True)
        self._waiting: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(self._shape(row))
        if len(self._waiting) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def _sink(format: Format, path: Path, chats: bool) -> _Sink:
    if format == "datatrove-jsonl":
        return _JsonLines(path)
    text = [("text", pa.large_string()), ("id", pa.string())]
    messages = [("messages", _MESSAGES)] if chats else []
    if format == "datatrove-parquet":
        facts = [key for key, _ in _FACTS]
        schema = pa.schema([*text, ("metadata", pa.struct(_FACTS)), *messages])
        return _Parquet(path, schema, lambda row: {**row, "metadata": {key: row[key] for key in facts}})
    return _Parquet(path, pa.schema([*text, *messages, *_FACTS[:-1]]), lambda row: row)


def _write_split(corpus_dir: Path, folder: Path, format: Format, split: str, chats: bool, done: _Written) -> None:
    """Files of bounded size; each split begins a new one."""
    sink: _Sink | None = None
    size = 0
    try:
        for row in _rows(corpus_dir, split):
            if sink is None:
                place = _place(format, split, len(done.files))
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                done.files.append(place)
                sink = _sink(format, folder / place, chats)
            sink.add(row)
            here = len(row["text"].encode("utf-8", "replace"))
            size, done.bytes, done.documents = size + here, done.bytes + here, done.documents + 1
            if size >= FILE_BYTES:
                sink.close()
                sink, size = None, 0
    finally:
        if sink is not None:
            sink.close()


def _place(format: Format, split: str, number: int) -> str:
    if format == "hf-parquet":
        return f"data/{_HUB_SPLITS[split]}-{number:05d}.parquet"
    return f"{number:05d}.jsonl.gz" if format == "datatrove-jsonl" else f"{number:05d}.parquet"


def _number_files(folder: Path, done: _Written) -> None:
    """The hub's names say how many files a split has: known only now."""
    for split in _HUB_SPLITS.values():
        own = [place for place in done.files if place.startswith(f"data/{split}-")]
        for number, place in enumerate(own):
            named = f"data/{split}-{number:05d}-of-{len(own):05d}.parquet"
            shutil.move(folder / place, folder / named)
            done.files[done.files.index(place)] = named


def _card(corpus_dir: Path, about: dict[str, Any], done: _Written, name: str) -> str:
    """The data set's card: front matter that the hub reads, then what is in it, under which licences, and whom to name."""
    rows = licence_table(corpus_dir)
    ids = sorted({row.license for row in rows if row.license})
    known = all(row.license for row in rows)
    splits = [split for split in ("train", "test") if any(place.startswith(f"data/{split}-") for place in done.files)]
    front = {
        "license": ids[0].lower() if len(ids) == 1 and known and " " not in ids[0] else "other",
        "pretty_name": name,
        "task_categories": ["text-generation"],
        "size_categories": [next((size for limit, size in _SIZES if done.documents < limit), "100M<n<1B")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in splits],
            }
        ],
    }
    lines = [
        f"# {_line(name)}", "", f"{done.documents:,} documents, {done.bytes:,} bytes of text. Made with gptwright; corpus `{about['hash']}`.", "",
        "Columns: `text`, `id`, `source`, `locator` (the place in the source), `url`, `title`, `language`, `published_at`, `license` (an SPDX"
        " expression), `license_source` (how it is known), `license_conf` (how surely), `attribution`; `messages` where there are conversations.",
        "", "## Licences", "", "Each text is under its own licence, in its row. Sums over the whole corpus:", "",
        "| licence | source | documents | bytes | known from |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        how = ", ".join(row.known_from)
        lines.append(f"| {row.license or 'not known'} | {row.source} | {row.documents:,} | {row.bytes:,} | {how} |")
    lines += ["", "## Attribution", "", *(line for row in rows for line in _credits(row)), ""]
    sources = about["meta"].get("sources", {})
    lines += ["## Sources", "", *(f"- {key}: `{_line(str(one.get('uri', '')))}`" for key, one in sources.items()), ""]
    return "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---\n\n" + "\n".join(lines)


def _credits(row: LicenceRow, most: int = 200) -> Iterator[str]:
    for credit in row.attribution[:most]:
        yield f"- {_line(credit)} ({row.license or 'licence not known'}, {row.source})"
    if row.n_attribution > most:
        yield f"- and {row.n_attribution - most:,} more, in the column `attribution` ({row.license or 'licence not known'}, {row.source})"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
