"""Archives and packed files: every member in one outcome, and nothing that a hostile one can do but end in a clear outcome."""

import bz2
import gc
import gzip
import io
import json
import lzma
import os
import tarfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from gptwright.corpus.readers import archives
from gptwright.corpus.readers import blob as blobs

if TYPE_CHECKING:
    from conftest import Extract

TEXT = "Some words about the old bridge.\n"


def zipped(files: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, str | bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


MEMBERS: dict[str, str | bytes] = {
    "a/one.txt": TEXT + "1",
    "a/two.jsonl": json.dumps({"text": TEXT + "2"}) + "\nbroken\n",
    "page.html": f"<html><body><main><p>{TEXT}3</p></main></body></html>",
    "empty.txt": "",
    "photo.png": b"\x89PNG\r\n",
    ".git/config": "x",
    "broken.pdf": b"not one",
}


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_archive_when_it_holds_all_kinds_then_each_member_ends_in_one_outcome(extracted: "Extract", mode: str) -> None:
    data = zipped(MEMBERS) if mode == "zip" else tarred(MEMBERS, mode)
    found = extracted({"x.bin": data})  # its bytes say what it is
    assert {name.removeprefix("x.bin!/"): outcome for name, (outcome, _) in found.outcomes.items()} == {
        "x.bin": "ok", "a/one.txt": "ok", "a/two.jsonl": "ok", "page.html": "ok", "empty.txt": "empty", "photo.png": "skipped",
        ".git/config": "skipped", "broken.pdf": "unreadable",
    }  # fmt: skip
    assert found.texts["x.bin!/a/one.txt"] == TEXT + "1"
    assert found.texts["x.bin!/a/two.jsonl#row=1"] == TEXT + "2"
    assert "row 2: not JSON" in str(found.outcomes["x.bin!/a/two.jsonl"][1])
    assert found.counts == {
        name: (3 if name == "x.bin" else int(outcome == "ok")) for name, (outcome, _) in found.outcomes.items()
    }
    assert len({row["raw_hash"] for row in found.rows}) == 1


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda data: zstandard.compress(data)),
    ],
)
def test_packed_file_when_of_any_kind_then_it_is_read_as_what_it_holds(
    extracted: "Extract", suffix: str, pack: object
) -> None:
    rows = "".join(json.dumps({"text": f"{TEXT}{n}"}) + "\n" for n in range(3)).encode()
    both = pack(rows[:50]) + pack(rows[50:])  # type: ignore[operator]  # two members one after the other are one file
    found = extracted(
        {f"a.jsonl{suffix}": both, f"b.txt{suffix}": pack(TEXT.encode()), f"c{suffix}": pack(zipped({"d.txt": TEXT}))}
    )  # type: ignore[operator]
    assert [found.counts[f"a.jsonl{suffix}"], found.counts[f"b.txt{suffix}"]] == [3, 1]
    assert found.rows[0]["mime"] == "application/jsonl"
    assert found.texts[f"c{suffix}!/d.txt"] == TEXT.strip()


def test_archive_when_names_point_outside_then_they_are_read_under_clean_names_and_it_is_said(
    extracted: "Extract", tmp_path: Path
) -> None:
    names = ["../../evil.txt", "/etc/passwd", "C:\\temp\\x.txt", "ok/../../up.txt", "a\x07b.txt"]
    before = sorted(
        str(path) for path in tmp_path.parent.rglob("*") if "data" not in path.parts and "tasks" not in path.parts
    )
    for kind, data in {"z": zipped(dict.fromkeys(names, TEXT)), "t": tarred(dict.fromkeys(names, TEXT))}.items():
        found = extracted({kind: data})
        assert {
            f"{kind}!/evil.txt",
            f"{kind}!/etc/passwd",
            f"{kind}!/temp/x.txt",
            f"{kind}!/ok/up.txt",
            f"{kind}!/a_b.txt",
        } == {place.partition("#")[0] for place in found.texts}
        assert "outside of it" in str(found.outcomes[f"{kind}!/evil.txt"][1])
        assert "outside of it" in str(found.outcomes[f"{kind}!/etc/passwd"][1])
    assert before == sorted(
        str(path) for path in tmp_path.parent.rglob("*") if "data" not in path.parts and "tasks" not in path.parts
    )


def test_archive_when_it_holds_links_and_devices_then_they_are_skipped(extracted: "Extract") -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, target in (
            ("l", tarfile.SYMTYPE, "/etc/passwd"),
            ("h", tarfile.LNKTYPE, "l"),
            ("d", tarfile.CHRTYPE, ""),
            ("p", tarfile.FIFOTYPE, ""),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
    zip_out = io.BytesIO()
    with zipfile.ZipFile(zip_out, "w") as packed:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    found = extracted({"a.tar": out.getvalue(), "b.zip": zip_out.getvalue()})
    assert {
        name: found.outcomes[name][0] for name in ("a.tar!/l", "a.tar!/h", "a.tar!/d", "a.tar!/p", "b.zip!/link")
    } == dict.fromkeys(("a.tar!/l", "a.tar!/h", "a.tar!/d", "a.tar!/p", "b.zip!/link"), "skipped")
    assert not found.texts


def test_archive_when_two_members_have_one_name_then_both_are_read(extracted: "Extract") -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(2):
            entry = tarfile.TarInfo("x.txt")
            entry.size = 6
            archive.addfile(entry, io.BytesIO(b"text %d" % number))
    assert extracted({"a.tar": out.getvalue()}).texts == {"a.tar!/x.txt": "text 0", "a.tar!/x.txt~2": "text 1"}


def test_archive_when_encrypted_then_its_members_say_so(extracted: "Extract") -> None:
    data = bytearray(zipped({"a.txt": TEXT}))
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        data[data.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
    assert "password" in str(extracted({"a.zip": bytes(data)}).outcomes["a.zip!/a.txt"][1])


def bomb(kind: str) -> bytes:
    zeros = b"a" * (1 << 20)
    if kind == "gz":
        out = io.BytesIO()
        with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
            for _ in range(300):
                file.write(zeros)
        return out.getvalue()
    if kind == "zst":
        return zstandard.ZstdCompressor(3).compress(zeros * 300)
    if kind == "nested":
        data = zipped({f"{n}.txt": zeros * 4 for n in range(50)})
        return zipped({f"{n}.zip": data for n in range(20)})
    if kind == "shared":  # entries that all point at the same packed bytes
        data = zipped({"x.txt": zeros * 10})
        at = data.index(b"PK\x01\x02")
        end = data.index(b"PK\x05\x06")
        entry, tail = data[at:end], bytearray(data[end:])
        tail[8:12] = (1000).to_bytes(2, "little") * 2
        tail[12:16] = (len(entry) * 1000).to_bytes(4, "little")
        return data[:at] + entry * 1000 + bytes(tail)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.txt", "w") as member:
        for _ in range(300):
            member.write(zeros)
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gz", "zst", "zip", "nested", "shared"])
def test_bomb_when_it_goes_off_then_it_ends_soon_and_says_so(extracted: "Extract", kind: str) -> None:
    data = bomb(kind)
    started = time.process_time()
    found = extracted({f"a.txt.{kind}": data})
    assert time.process_time() - started < 10
    assert "made to do harm" in json.dumps(found.outcomes)
    assert sum(map(len, found.texts.values())) < 70 << 20


def test_bomb_when_limits_are_small_then_nothing_is_read_past_them(
    extracted: "Extract", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "FREE_BYTES", 10_000)
    monkeypatch.setattr(blobs, "MOST_RATIO", 5)
    for name, data in {
        "a.zip": zipped({"x.txt": "word " * 9000}),
        "b.txt.gz": gzip.compress(b"word " * 9000),
        "c.docx": zipped({"[Content_Types].xml": "", "word/document.xml": "<a>" + " " * 90000 + "</a>"}),
    }.items():
        found = extracted({name: data})
        assert found.outcomes[name][0] == "unreadable"
        assert "made to do harm" in str(found.outcomes[name][1])
        assert not found.texts


def test_archive_when_nested_too_deep_then_it_is_said_where(extracted: "Extract") -> None:
    data: bytes = zipped({"x.txt": TEXT})
    for level in range(6):
        data = zipped({f"{level}.zip": data})
    found = extracted({"a.zip": data})
    assert any("deep" in str(reason) for _, reason in found.outcomes.values())
    assert not found.texts
    shallow = extracted({"b.zip": zipped({"c.zip": zipped({"d.tar.gz": tarred({"e.txt": TEXT}, "w:gz")})})})
    assert list(shallow.texts) == ["b.zip!/c.zip!/d.tar.gz!/e.txt"]


def test_archive_when_it_has_too_many_members_then_it_is_refused_before_its_table_is_read(
    extracted: "Extract", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "MOST_MEMBERS", 5)
    from gptwright.corpus.readers import kinds

    monkeypatch.setattr(kinds, "MOST_MEMBERS", 5)
    files: dict[str, str | bytes] = {f"{n}.txt": f"{TEXT}{n}" for n in range(9)}
    found = extracted({"a.zip": zipped(files), "b.tar": tarred(files)})
    assert found.outcomes["a.zip"][0] == "unreadable"
    assert "9 members" in str(found.outcomes["a.zip"][1])
    assert found.counts["b.tar"] == 5
    assert "members" in str(found.outcomes["b.tar"][1])


@pytest.mark.slow
def test_archive_when_it_has_many_empty_files_then_cost_grows_with_their_number(extracted: "Extract") -> None:
    def cost(count: int) -> float:
        data = zipped({f"{n % 100}/{n}.txt": "" for n in range(count)})
        started = time.process_time()
        found = extracted({f"{count}.zip": data})
        assert len(found.outcomes) == count + 1
        return time.process_time() - started

    cost(100)
    small, large = cost(2_000), cost(20_000)
    assert large < 40 * max(small, 0.1)  # ten times the files; a hundred times the cost would be quadratic


@pytest.mark.slow
def test_files_when_many_are_empty_then_cost_grows_with_their_number(extracted: "Extract", tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"{number}.txt").touch()

    def cost(count: int) -> float:
        files = {f"{count}/{n}.txt": folder / f"{n}.txt" for n in range(count)}
        started = time.process_time()
        assert {outcome for outcome, _ in extracted(files).outcomes.values()} == {"empty"}
        return time.process_time() - started

    cost(100)
    small, large = cost(1_000), cost(10_000)
    assert large < 40 * max(small, 0.1)  # ten times the files; a hundred times the cost would be quadratic


@pytest.mark.skipif(os.name == "nt", reason="needs /proc")
def test_archive_when_it_was_read_then_no_file_is_left_open(extracted: "Extract") -> None:
    files = {
        "a.zip": zipped(MEMBERS),
        "b.tar.gz": tarred(MEMBERS, "w:gz"),
        "c.txt.gz": gzip.compress(b"x"),
        "d.zst": zstandard.compress(b"words"),
    }
    extracted(files)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    extracted({f"again/{name}": data for name, data in files.items()})
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(
    ("name", "clean"),
    [("a/b.txt", "a/b.txt"), ("./a", "a"), ("", "unnamed"), ("../..", "unnamed"), ("a" * 3000, "a" * 1000)],
)
def test_name_when_odd_then_it_is_a_place_inside(name: str, clean: str) -> None:
    assert archives.clean_name(name)[0] == clean
