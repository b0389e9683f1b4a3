"""Documents by selector, and samples: a part at a time, so that memory does not grow with the corpus."""

import fnmatch
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.corpus.borders import across_parts
from gptwright.corpus.copies import Bools
from gptwright.corpus.reading import BATCH, Found, at_rows, found_rows, manifest
from gptwright.corpus.tables import part_path

SELECTORS = ("id", "path", "url", "source", "license", "text", "email")
_GLOB = re.compile(r"[*?\[]")
_ADDRESS = r"[A-Za-z0-9._%+'-]"  # what an address may hold beside the one that is looked for


def selector_of(text: str) -> tuple[str, str]:
    """Kind and value of a selector; without a prefix an id or a path."""
    kind, mark, value = text.partition(":")
    if mark and kind in SELECTORS:
        return kind, value
    hexadecimal = len(text) >= 6 and all(c in "0123456789abcdef" for c in text)
    return ("id" if hexadecimal else "path"), text


def find_documents(corpus_dir: Path, selector: str, limit: int | None = 10) -> list[Found]:
    """Documents that a selector names, dropped ones too.

    Args:
        corpus_dir: work/corpus.
        selector: ``id:HEX`` (also its beginning), ``path:GLOB`` (of the locator, or source/locator), ``url:GLOB``, ``source:NAME``,
            ``license:SPDX``, ``text:FILE`` (documents that hold the passage in this file, case and layout aside), ``email:ADDRESS``
            (documents in which it stands, masked or not); without a prefix an id or a path.
        limit: stop after so many; None: all.

    Raises:
        UserError: a passage or an address that names nothing.
    """
    found: list[Found] = []
    for _, one in iter_documents(corpus_dir, selector):
        found.append(one)
        if limit is not None and len(found) >= limit:
            break
    return found


def iter_documents(corpus_dir: Path, selector: str) -> Iterator[tuple[int, Found]]:
    """Documents that a selector names, one after the other, with their rows over all parts. See find_documents."""
    kind, value = selector_of(selector)
    names, matches = _matcher(kind, value)
    # One that crosses from a part of a document to the next stands in neither.
    crossing = across_parts(corpus_dir, passage_of(value)) if kind == "text" else np.zeros(0, np.int64)
    first = 0
    for number in range(manifest(corpus_dir)["parts"]):
        with pq.ParquetFile(part_path(corpus_dir, "docs", number)) as file:
            size = file.metadata.num_rows
            batches = [matches(batch) for batch in file.iter_batches(batch_size=BATCH * 4, columns=names)]
        chosen = np.concatenate([*batches, np.zeros(0, bool)])
        chosen[crossing[(crossing >= first) & (crossing < first + size)] - first] = True
        yield from ((first + row, found) for row, found in found_rows(corpus_dir, number, chosen))
        first += size


def find_document(corpus_dir: Path, selector: str) -> Found:
    """The one document that a selector names; of several the first.

    Raises:
        UserError: there is none.
    """
    if found := find_documents(corpus_dir, selector, 1):
        return found[0]
    raise UserError(
        f"no document {selector!r} in the corpus",
        where=str(corpus_dir),
        fix="Name an id, a path or a pattern such as path:notes/*",
    )


def _matcher(kind: str, value: str) -> tuple[list[str], Callable[[pa.RecordBatch], Bools]]:
    """The columns to read, and what says of a batch which rows match."""
    if kind == "id":
        return ["doc_uid"], partial(_by_id, value.lower())
    if kind == "source":
        return ["source"], lambda batch: _equal(batch["source"], value)
    if kind == "license":
        return ["license_id"], lambda batch: _equal(pc.utf8_lower(batch["license_id"]), value.lower())
    if kind == "url":
        return ["url"], lambda batch: _each(batch["url"], lambda url: fnmatch.fnmatchcase(url, value))
    if kind == "text":
        return ["text"], partial(_by_passage, passage_of(value))
    if kind == "email":
        if "@" not in value:
            raise UserError(f"{value!r} is not an e-mail address", fix="Write: email:name@example.org")
        return ["text"], partial(_by_address, value)
    return ["source", "locator"], partial(_by_path, value)


def _bools(array: pa.Array) -> Bools:
    values: Bools = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return values


def _equal(column: pa.Array, value: str) -> Bools:
    return _bools(pc.equal(column, value))


def _each(column: pa.Array, test: Callable[[str], bool]) -> Bools:
    return np.array([one is not None and test(one) for one in column.to_pylist()], bool)


def _by_id(value: str, batch: pa.RecordBatch) -> Bools:
    if not re.fullmatch("[0-9a-f]{1,32}", value):
        return np.zeros(batch.num_rows, bool)
    whole = _bools(pc.starts_with(batch["doc_uid"].cast(pa.binary()), bytes.fromhex(value[: len(value) // 2 * 2])))
    if len(value) % 2:
        for row in np.flatnonzero(whole):
            whole[row] = batch["doc_uid"][row].as_py().hex().startswith(value)
    return whole


def _by_path(value: str, batch: pa.RecordBatch) -> Bools:
    places = zip(batch["source"].to_pylist(), batch["locator"].to_pylist(), strict=True)
    return np.array([_matches_path(value, source, locator) for source, locator in places], bool)


def _matches_path(value: str, source: str, locator: str) -> bool:
    file = locator.partition("#")[0]
    names = (locator, file, f"{source}/{locator}", f"{source}/{file}")
    if not _GLOB.search(value):
        return value in names
    return value in names or any(fnmatch.fnmatchcase(name, value) for name in names)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def passage_of(file: str) -> str:
    """The passage in a file, case and layout aside.

    Raises:
        UserError: it cannot be read, or is empty.
    """
    path = Path(file).expanduser()
    try:
        passage = _normal(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the passage cannot be read: {error}", where=file, fix="Write: text:FILE, a UTF-8 text file"
        ) from error
    if not passage:
        raise UserError("the passage is empty", where=file, fix="Write the text to look for into the file")
    return passage


def _by_passage(passage: str, batch: pa.RecordBatch) -> Bools:
    """Rows whose text holds a passage, case and layout aside."""
    return _verified(batch["text"], max(passage.split(), key=len), lambda text: passage in _normal(text))


def _by_address(address: str, batch: pa.RecordBatch) -> Bools:
    """Rows in which an address stands, and not as a piece of a longer one."""
    pattern = re.compile(rf"(?<!{_ADDRESS}){re.escape(address)}(?![A-Za-z0-9_-]|\.[A-Za-z0-9])", re.IGNORECASE)
    return _verified(batch["text"], address, lambda text: pattern.search(text) is not None)


def _verified(column: pa.Array, part: str, test: Callable[[str], bool]) -> Bools:
    """Rows that pass a test. ASCII texts that do not hold a part in any case cannot; others are all tested, since case folding may
    change their letters (an erasure must not miss a text)."""
    possible = np.ones(len(column), bool)
    if part.isascii():
        held = _bools(pc.match_substring(pc.ascii_lower(column), part.lower()))
        possible = held | ~_bools(pc.string_is_ascii(column))
    for row in np.flatnonzero(possible):
        possible[row] = test(column[int(row)].as_py())
    return possible


def sample(corpus_dir: Path, n: int = 10, *, rule: str | None = None, seed: int = 0) -> list[Found]:
    """Documents to look at, the same for the same seed.

    Args:
        n: how many.
        rule: of those that this rule dropped; None for kept ones.
        seed: another seed, other documents.
    """
    keys, rows = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    first = 0
    for number in range(manifest(corpus_dir)["parts"]):
        decisions = pq.read_table(
            part_path(corpus_dir, "decisions", number),
            columns=["doc_uid", "verdict"] if rule is None else ["doc_uid", "failed"],
        )
        at = np.flatnonzero(
            _bools(pc.equal(decisions["verdict"], "keep")) if rule is None else failed_by(decisions, rule)
        )
        uids = np.frombuffer(b"".join(decisions["doc_uid"].take(pa.array(at)).to_pylist()), "<u8")[::2]
        keys = np.concatenate([keys, _mixed(uids, seed)])
        rows = np.concatenate([rows, first + at])
        best = np.lexsort((rows, keys))[:n]
        keys, rows = keys[best], rows[best]
        first += decisions.num_rows
    found = dict(at_rows(corpus_dir, rows.tolist()))
    return [found[row] for row in rows.tolist()]


def failed_by(decisions: pa.Table, rule: str) -> Bools:
    """Which rows of decisions failed a rule, first or not."""
    failed = decisions["failed"].combine_chunks()
    if isinstance(failed, pa.ChunkedArray):
        failed = failed.combine_chunks()
    hit = _bools(pc.equal(pc.struct_field(pc.list_flatten(failed), "rule"), rule))
    chosen = np.zeros(decisions.num_rows, bool)
    chosen[pc.list_parent_indices(failed).to_numpy()[hit]] = True
    return chosen


def _mixed(keys: Any, seed: int) -> Any:
    """A finaliser of a 64-bit hash: another seed, another order.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014 (SplitMix64).
    """
    with np.errstate(over="ignore"):
        z = keys + np.uint64(seed % (1 << 64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
