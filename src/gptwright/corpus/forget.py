"""Texts taken out of a corpus for good: out of the results of tasks, and so out of every table that is linked to them.

A task's result is what its files hold without the erased texts (``blocks``); so forgetting deletes the results that hold one, and the
next build makes them again without it, also from the person's own file that still has the text.
"""

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from gptwright.core.files import atomic_write, read_json
from gptwright.corpus.blocks import Block, Blocks
from gptwright.corpus.readers.rows import KEY_METADATA
from gptwright.corpus.sources.raw import RawStore

DERIVED = ("docs", "signals", "edits", "decisions", "index", "features", "report")


@dataclass(frozen=True)
class Victim:
    """A document that is to be erased; ids are 32 hex digits."""

    uid: str
    norm_id: str
    source: str
    locator: str
    verdict: str
    because: str
    license: str | None

    def row(self) -> dict[str, Any]:
        """As plain values, for ``trace``."""
        return {
            "id": self.uid,
            "source": self.source,
            "locator": self.locator,
            "verdict": self.verdict,
            "because": self.because,
        }


def purge_tasks(out: Path, norm_ids: Collection[str]) -> int:
    """Delete the tasks' results that hold any of these texts, and all that is made from them. Returns how many.

    The corpus then has no manifest: nobody reads it until it is built again.

    Args:
        out: the corpus folder.
        norm_ids: hex.
    """
    wanted = pa.array([bytes.fromhex(one) for one in sorted(norm_ids)], pa.binary(16))
    (out / "corpus.json").unlink(missing_ok=True)
    purged = 0
    for record_path in sorted((out / "tasks").glob("extract-*.json")):
        outputs = [out / "tasks" / output["name"] for output in read_json(record_path)["outputs"]]
        if any(
            pc.any(pc.is_in(pq.read_table(path, columns=["norm_id"])["norm_id"], wanted)).as_py() for path in outputs
        ):
            for path in outputs:
                # What was made from it bears another name from now on; until the build removes it, it must not be read.
                path.unlink(missing_ok=True)
            record_path.unlink()
            purged += 1
    for name in DERIVED:
        shutil.rmtree(out / name, ignore_errors=True)
    return purged


def purge_raw(raw: Path, victims: Collection[Victim], shared: Collection[tuple[str, str]]) -> list[str]:
    """Erase victims from what was gathered. Returns what was done, and what could not be, as lines.

    A place whose every document is a victim loses its bytes. Of a table (parquet, JSON lines) the victims' rows are emptied. A place of
    another kind that also holds other texts is erased whole.

    Args:
        raw: where the raw stores stand.
        victims: what is erased.
        shared: (source, file) that also gave other documents.
    """
    lines: list[str] = []
    places: dict[tuple[str, str], list[Victim]] = {}
    for victim in victims:
        places.setdefault((victim.source, victim.locator.partition("#")[0]), []).append(victim)
    for (source, locator), own in sorted(places.items()):
        folder = raw / source
        if not (folder / "index.sqlite").exists():
            continue
        store = RawStore(folder)
        # An archive's member stands behind "!/"; the archive is the place.
        name = locator if store.get(locator) is not None else locator.partition("!/")[0]
        place = store.get(name)
        if place is None or place.file is None:
            continue
        marks = {v.locator.partition("#")[2].partition("&part=")[0] for v in own}
        if (source, locator) in shared and _empty_rows(place.file, marks):
            store.renew(name)
            lines.append(f"{source}/{name}: {len(marks)} rows emptied")
            continue
        store.erase(name)
        more = " (other texts that stood in the same file went with it)" if (source, locator) in shared else ""
        lines.append(f"{source}/{name}: deleted from what was gathered{more}")
    return lines


def _empty_rows(path: Path, marks: Collection[str]) -> bool:
    """Empty rows of a gathered table in place, their numbers and keys kept; False when it is no table that is known.

    Args:
        path: the table.
        marks: of the rows, ``row=N`` (from 1) or ``key=K``, as locators have them.
    """
    with open(path, "rb") as file:
        head = file.read(4)
    numbers = {int(mark.removeprefix("row=")) for mark in marks if mark.startswith("row=")}
    keys = {mark.removeprefix("key=") for mark in marks if mark.startswith("key=")}
    if head == b"PAR1" and (numbers or keys):
        table = pq.read_table(path)
        column = ((table.schema.metadata or {}).get(KEY_METADATA) or b"").decode()
        named = table[column].to_pylist() if column else [None] * table.num_rows
        gone = [n in numbers or str(key) in keys for n, key in enumerate(named, 1)]
        if sum(gone) < len(marks):
            return False
        mask = pa.array(gone)
        empty = {
            name: table[name] if name == column else pc.if_else(mask, pa.scalar(None, table[name].type), table[name])
            for name in table.column_names
        }
        with atomic_write(path) as out:
            pq.write_table(pa.table(empty, schema=table.schema), out, compression="zstd")
        return True
    if head[:1] == b"{" and numbers:
        with open(path, encoding="utf-8") as file, atomic_write(path, "w") as out:
            for number, line in enumerate(file, 1):
                out.write(json.dumps({}) + "\n" if number in numbers else line)
        return True
    return False


def still_at(root: Path, victims: Collection[Victim], raw: Path, places: dict[str, Path]) -> list[str]:
    """Files of the person's own that still hold a victim: theirs to delete.

    Args:
        root: the project folder.
        victims: what is erased.
        raw: where the raw stores stand.
        places: source name -> folder or file.
    """
    found = set()
    for victim in victims:
        place = places.get(victim.source)
        if place is None or (raw / victim.source / "index.sqlite").exists():
            continue
        file = place if place.is_file() else place / victim.locator.partition("#")[0].partition("!/")[0]
        if file.exists():
            found.add(file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file))
    return sorted(found)


@dataclass(frozen=True)
class Widened:
    """Blocks that grew by near copies of erased texts."""

    blocks: Blocks
    fresh: frozenset[str]  # norm_ids, hex


def near_copies(blocks: Blocks, features: Sequence[Path]) -> Widened | None:
    """Near copies of erased texts that came in with new files; None when there are none.

    Args:
        blocks: what was erased.
        features: of each docs file (``dedup.features.write_features``).
    """
    fresh: dict[bytes, Block] = {}
    for path in features:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                signed = batch.filter(pc.greater(batch["shingles"], 0))
                keys = np.asarray(signed["keys"].flatten()).reshape(signed.num_rows, -1)
                norms = signed["norm_id"].to_pylist()
                # Known as a whole only: what is near to these in turn need not be near to what was erased.
                fresh |= {norms[row]: blocks.block(norms[row]) for row in blocks.match(norms, keys)}
    if not fresh:
        return None
    return Widened(replace(blocks, blocks=(*blocks.blocks, *fresh.values())), frozenset(norm.hex() for norm in fresh))
