"""Own conversations from files, with a fault for each row that cannot be used."""

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.chats import read_chats

PAIR = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
ALPACA = {"instruction": "Hi", "output": "Hello"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("openai.jsonl", json.dumps({"messages": PAIR}) + "\n"),
        ("sharegpt.json", json.dumps([SHAREGPT])),
        ("alpaca.json", json.dumps([ALPACA], indent=1)),
        ("alpaca.jsonl", "\n" + json.dumps(ALPACA)),
        ("pairs.csv", "prompt,response\nHi,Hello\n"),
        ("pairs.tsv", "question\tanswer\nHi\tHello\n"),
        ("german.csv", "prompt;response\nHi;Hello\n"),
        ("lines.txt", json.dumps(ALPACA) + "\n" + json.dumps(ALPACA) + "\n"),
    ],
)
def test_chats_when_format_is_known_then_it_is_detected(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    read = read_chats(tmp_path / name)
    assert read.faults == []
    assert read.conversations[0] == PAIR


def test_chats_when_parquet_has_nested_messages_then_they_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"messages": [PAIR, PAIR]}), tmp_path / "chats.parquet")
    assert read_chats(tmp_path / "chats.parquet").conversations == [PAIR, PAIR]


def test_chats_when_rows_are_broken_then_each_is_named_by_line_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        json.dumps({"messages": PAIR}),
        "{broken",
        json.dumps({"messages": [{"role": "wizard", "content": "x"}, PAIR[0]]}),
        json.dumps({"messages": [PAIR[0]]}),
        json.dumps({"text": "prose"}),
        json.dumps(SHAREGPT),
    ]
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join(lines))
    read = read_chats(file)
    assert read.conversations == [PAIR, PAIR]
    assert len(read.faults) == 4
    by_line = {fault.removeprefix(f"{file}:").partition(":")[0]: fault for fault in read.faults}
    assert "not JSON" in by_line["2"]
    assert "unknown role 'wizard'. Use system" in by_line["3"]
    assert "no turn of the assistant" in by_line["4"]
    assert "a text, not a conversation" in by_line["5"]


def test_chats_when_csv_row_has_too_many_cells_then_its_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text('prompt,response\n"two\nlines",ok\na,b,c\n')
    read = read_chats(tmp_path / "c.csv")
    assert len(read.conversations) == 1
    assert read.faults[0].startswith(f"{tmp_path / 'c.csv'}:4: 3 cells where the header has 2")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"x,y\n1,2\n", "no column of texts among x, y"),
        ("a.txt", b"just prose", "this is text, not conversations"),
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b"\x00\x01\x02\x03" * 99, "binary"),
        ("a.json", b"[1, 2", "not valid JSON"),
    ],
)
def test_chats_when_file_is_of_no_use_then_the_error_says_what_to_write(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_chats(tmp_path / name)
    assert caught.value.fix


def test_chats_when_file_is_missing_then_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_chats(tmp_path / "none.jsonl")


def test_chats_when_folder_is_given_then_all_its_files_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("prompt,response\nsecond,B\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "first", "response": "A"}))
    (tmp_path / "notes.txt").write_text("not looked at")
    assert [c[0]["content"] for c in read_chats(tmp_path).conversations] == ["first", "second"]


def test_chats_when_folder_has_none_then_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no conversations in this folder"):
        read_chats(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b'\xef\xbb\xbf{"prompt": "caf\xe9", "response": "b"}\n', '{"prompt": "café", "response": "b"}'.encode("cp1252")],
)
def test_chats_when_a_byte_is_of_another_encoding_then_the_row_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    assert read_chats(tmp_path / "a.jsonl").conversations[0][0]["content"] == "café"


def test_chats_when_file_is_packed_or_in_an_archive_then_it_is_read_all_the_same(tmp_path: Path) -> None:
    row = b'{"prompt": "a", "response": "b"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(row))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("inner/x.jsonl", row + b"not json\n")
        archive.writestr("inner/readme.png", b"\x89PNG\r\n")
    found = read_chats(tmp_path)
    assert len(found.conversations) == 2
    assert [fault.partition("not JSON")[0] for fault in found.faults] == [f"{tmp_path / 'b.zip'}!/inner/x.jsonl:2: "]
