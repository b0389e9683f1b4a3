# ruff: noqa: E501 - hostile files, written out
"""Files made to do harm, or broken in odd ways: each ends soon, in bounded memory, in a clear outcome."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from tests.peak import PEAK

from gptwright.corpus import text as t
from gptwright.corpus.readers import html, rows

if TYPE_CHECKING:
    from conftest import Extract


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("tag", ["div", "b", "section><p", "table><tr><td", "x-y", "div class='a>b'"])
def test_html_when_nested_100000_deep_then_it_is_read_in_seconds(extracted: "Extract", tag: str, closed: bool) -> None:
    names = [part.split()[0] for part in tag.split("><")]
    end = "".join(f"</{name}>" for name in reversed(names)) * 100_000 if closed else ""
    page = f"<html><head><title>Deep</title></head><body><p>Before.</p>{f'<{tag}>' * 100_000}Words at the bottom.{end}<p>After.</p></body></html>"
    started = time.process_time()
    found = extracted({"a.html": page})
    assert time.process_time() - started < 8
    assert "Words at the bottom." in found.texts["a.html"]


def test_flatten_when_page_is_honest_then_nothing_changes() -> None:
    page = "<html><body>" + "<div><p>one<br>two<ul><li>x<li>y</ul></div>\n" * 3000 + "</body></html>"
    assert html.flatten(page) is page


def test_flatten_when_page_is_deep_then_only_tags_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MOST_DEPTH", 3)
    monkeypatch.setattr(html, "FEW_TAGS", 0)
    assert html.flatten("<a><b><c><d>x<e>y</e></d>z</c></b></a>w") == "<a><b><c>xyz</c></b></a>w"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "[" * 1_000_000, "recursion"),
        ("b.jsonl", '{"text": "fine"}\n' + '{"a":' * 100_000 + "\n", "row 2"),
        ("c.yaml", "[" * 100_000, "levels deep"),
        ("d.yaml", "- " * 100_000, "levels deep"),
        ("e.yaml", "a:\n" + "\n".join(" " * n + "a:" for n in range(1, 2000)), "levels deep"),
        ("f.yaml", "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)) + "data: [*a29]\n", "aliases"),
        ("g.yaml", "a: &a [*a]\ntext: words\n", ""),
        ("h.rtf", "{\\rtf1 " + "{" * 1_000_000, "deep"),
        ("i.ipynb", "[" * 1_000_000, "JSON"),
        ("j.eml", "From: a\nSubject: b\nMIME-Version: 1.0\n" + "".join(f"Content-Type: multipart/mixed; boundary={n}\n\n--{n}\n" for n in range(5000)), "parts"),
    ],
)  # fmt: skip
def test_data_when_nested_without_end_then_it_is_refused_at_once(
    extracted: "Extract", name: str, content: str, words: str
) -> None:
    started = time.process_time()
    found = extracted({name: content})
    assert time.process_time() - started < 5
    assert words in str(found.outcomes[name][1])


def test_csv_when_a_field_is_huge_then_the_row_is_refused_and_memory_is_bounded(
    extracted: "Extract", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t, "ROW_CHARS", 1 << 20)
    found = extracted({"a.csv": 'text\nfirst row of words\n"' + "x" * (4 << 20) + '"\nlast\n'})
    assert list(found.texts.values()) == ["first row of words"]
    assert "longer than 1 M characters" in str(found.outcomes["a.csv"][1])


_BIG = (
    PEAK
    + """
import json, sys, time
from pathlib import Path
from gptwright.corpus import extract
from gptwright.corpus.sources.base import SourceFile

path, folder = Path(sys.argv[1]), Path(sys.argv[2])
info = path.stat()
terms = {"license_id": None, "license_source": "none", "license_conf": 0.0, "attribution": None, "pii_policy": "keep"}
file = extract.input_of(SourceFile(path.name, path, info.st_size, info.st_mtime_ns), "b2:x")
record = json.loads(Path(extract.run(extract.Job(str(folder), "own", terms, (file,)))).read_text())
print(json.dumps([record["files"][0], time.process_time(), peak_mb()]))
"""
)


@pytest.mark.slow
def test_text_when_500_mb_are_one_line_then_it_is_cut_into_parts_in_bounded_memory(tmp_path: Path) -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(5000)]
    block = " ".join(rng.choices(words, k=170_000)).encode()[: 1 << 20]
    path = tmp_path / "line.txt.zst"
    with zstandard.open(path, "wb", zstandard.ZstdCompressor(1)) as file:
        for _ in range(500):
            file.write(block)
    (tmp_path / "tasks").mkdir()
    command = [sys.executable, "-c", _BIG, str(path), str(tmp_path / "tasks")]
    done, seconds, peak_mb = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (done["outcome"], done["reason"]) == ("ok", None)
    assert done["documents"] > 7000
    assert seconds < 40
    assert peak_mb < 1000  # 410 when nothing has to be compiled first


def test_jsonl_when_a_line_is_longer_than_allowed_then_the_others_are_read(
    extracted: "Extract", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t, "ROW_CHARS", 1000)
    long = json.dumps({"text": "y" * 5000})
    found = extracted({"a.jsonl": f'{{"text": "one"}}\n{long}\n{{"text": "three"}}\n'})
    assert list(found.texts.values()) == ["one", "three"]


def test_json_when_a_list_is_too_long_to_hold_then_its_elements_are_read_one_by_one(
    extracted: "Extract", monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [{"text": f'Text {n} says ] and , and "quotes" {{}} ' + "é" * (n % 50)} for n in range(500)]
    whole = extracted({"a.json": json.dumps(values)})
    assert len(whole.rows) == 500
    monkeypatch.setattr(rows, "MOST_WHOLE", 300)
    monkeypatch.setattr(t, "BLOCK_BYTES", 100)
    for indent in (None, 2):
        streamed = extracted({f"{indent}.json": json.dumps(values, indent=indent, ensure_ascii=False)})
        assert list(streamed.texts.values()) == list(whole.texts.values())
        assert [k.partition("#")[2] for k in streamed.texts] == [k.partition("#")[2] for k in whole.texts]
    keyed = extracted({"k.json": json.dumps({f"k{n}": value for n, value in enumerate(values)})})
    assert list(keyed.texts.values()) == list(whole.texts.values())
    assert "k.json#key=k7" in keyed.texts
    assert extracted({"o.json": json.dumps({"version": 3, "data": values})}).outcomes["o.json"][0] == "skipped"
    broken = extracted({"b.json": json.dumps(values)[:-300]})
    assert 400 < len(broken.rows) < 500
    assert "cut off" in str(broken.outcomes["b.json"][1])


def test_text_when_encodings_are_mixed_then_each_byte_is_read_and_it_is_said(extracted: "Extract") -> None:
    lines = [f"Zeile {n}: Grüße aus der Küche für alle.".encode("cp1252" if n == 7 else "utf-8") for n in range(40)]
    found = extracted({"a.txt": b"\n".join(lines)})
    assert found.texts["a.txt"].count("Grüße aus der Küche für") == 40
    assert "4 bytes that are not UTF-8" in str(found.outcomes["a.txt"][1])


def test_text_when_cut_inside_a_character_then_the_rest_is_read(extracted: "Extract") -> None:
    found = extracted({"a.txt": ("Grüße und mehr. " * 20 + "ü").encode()[:-1]})
    assert found.texts["a.txt"].startswith("Grüße und mehr. Grüße")
    assert found.texts["a.txt"].endswith("\ufffd")


def test_file_when_it_changes_while_read_then_it_is_an_error_with_a_fix(
    extracted: "Extract", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptwright.core.errors import UserError
    from gptwright.corpus import readers

    path = tmp_path / "a.txt"
    path.write_text("one")
    real = readers.read_blob

    def changing(*args: object, **named: object) -> object:
        path.write_text("one and more")
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(readers, "read_blob", changing)
    with pytest.raises(UserError, match="changed while it was read"):
        extracted({"a.txt": path})


def test_names_when_they_lie_then_content_decides(extracted: "Extract", pdf: object) -> None:
    document = pdf([[(60, 700, 10, "A PDF that is named otherwise.")]])  # type: ignore[operator]
    found = extracted(
        {
            "report": document,
            "data.txt": '{"text": "first row of it"}\n{"text": "second row of it"}\n',
            "list.txt": '[{"text": "a list of rows"}, {"text": "in a text file"}]',
            "page.txt": "<!doctype html><html><body><main><p>A page in a text file.</p></main></body></html>",
            "code.txt": "#include <stdio.h>\nint main() { return 0; }\n",
            "song.txt": b"ID3\x03\x00" + bytes(100),
            "book.txt": document,
            "picture.md": b"\xff\xd8\xff\xe0" + bytes(100),
            "thing.bin": bytes(range(256)) * 10,
            "old.doc": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
        }
    )
    assert found.texts["report"] == "A PDF that is named otherwise."
    assert found.counts["data.txt"] == 2
    assert found.texts["list.txt#row=2"] == "in a text file"
    assert found.texts["page.txt"] == "A page in a text file."
    assert found.texts["code.txt"].startswith("#include")
    expected = {
        "song.txt": "unreadable",
        "book.txt": "unreadable",
        "picture.md": "unreadable",
        "thing.bin": "skipped",
        "old.doc": "skipped",
    }
    assert {name: found.outcomes[name][0] for name in expected} == expected
    assert "save it as docx" in str(found.outcomes["old.doc"][1])


def test_folder_when_kinds_are_mixed_and_names_repeat_then_every_file_is_read_for_itself(extracted: "Extract") -> None:
    files: dict[str, bytes | str | Path] = {f"{n}.txt": f"Text number {n}." for n in range(6)}
    files |= {f"rows{n}.jsonl": json.dumps({"text": f"Row of file {n}."}) for n in range(4)}
    files |= {"a/x.md": "One of two with the same name.", "b/x.md": "The other of two with the same name."}
    found = extracted(files)
    assert len(found.rows) == 12
    assert found.texts["a/x.md"] != found.texts["b/x.md"]
