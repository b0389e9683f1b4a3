"""What was gathered loses the rows that are erased and keeps all others, their numbers and their keys."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwright.corpus.forget import Victim, purge_raw
from gptwright.corpus.readers.rows import KEY_METADATA
from gptwright.corpus.sources.raw import RawStore


def victim(locator: str) -> Victim:
    return Victim("0" * 32, "1" * 32, "db", locator, "kept for training", "", None)


@pytest.mark.parametrize(("mark", "keyed"), [("key=28", True), ("row=2", False)])
def test_purge_when_a_row_of_a_table_is_erased_then_the_others_stay(tmp_path: Path, mark: str, keyed: bool) -> None:
    table = pa.table({"id": [7, 28, 30], "text": ["one", "a marker-91 text", "three"]})
    if keyed:
        table = table.replace_schema_metadata({KEY_METADATA: b"id"})
    pq.write_table(table, tmp_path / "rows.parquet")
    store = RawStore(tmp_path / "raw" / "db")
    store.begin()
    store.put("rows.parquet", tmp_path / "rows.parquet", suffix=".parquet")
    store.finish()
    before = store.fingerprint()
    lines = purge_raw(tmp_path / "raw", [victim(f"rows.parquet#{mark}")], {("db", "rows.parquet")})
    assert lines == ["db/rows.parquet: 1 rows emptied"]
    place = store.get("rows.parquet")
    assert place is not None
    assert place.file is not None
    assert pq.read_table(place.file)["text"].to_pylist() == ["one", None, "three"]
    assert b"marker-91" not in place.file.read_bytes()
    assert store.fingerprint() != before


def test_purge_when_a_line_of_json_lines_is_erased_then_the_others_keep_their_numbers(tmp_path: Path) -> None:
    store = RawStore(tmp_path / "raw" / "db")
    store.begin()
    store.put("a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in ("one", "marker", "three")).encode())
    store.finish()
    purge_raw(tmp_path / "raw", [victim("a.jsonl#row=2")], {("db", "a.jsonl")})
    place = store.get("a.jsonl")
    assert place is not None
    assert place.file is not None
    assert [json.loads(line) for line in place.file.read_text().splitlines()] == [
        {"text": "one"},
        {},
        {"text": "three"},
    ]


def test_purge_when_all_of_a_place_is_erased_then_it_loses_its_bytes(tmp_path: Path) -> None:
    store = RawStore(tmp_path / "raw" / "db")
    store.begin()
    store.put("https://a.example/x", b"marker text")
    store.finish()
    lines = purge_raw(tmp_path / "raw", [victim("https://a.example/x")], set())
    assert lines == ["db/https://a.example/x: deleted from what was gathered"]
    assert list(store.folder.glob("??/*")) == []
