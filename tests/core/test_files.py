"""Atomic writes, shown by making them fail."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptwright.core import files
from gptwright.core.errors import UserError
from gptwright.core.files import atomic_dir, atomic_write, read_json, remove_leftovers, write_json


def test_atomic_write_when_the_block_fails_then_the_old_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_write_when_the_disk_is_full_then_the_error_names_the_file_and_old_content_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with (
        pytest.raises(UserError, match=r"a\.bin: the disk is full; nothing was changed\. Free some space"),
        atomic_write(path) as file,
    ):
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_atomic_dir_when_replacing_then_old_files_are_gone(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("x")
    with atomic_dir(target) as folder:
        (folder / "new").write_text("y")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_atomic_write_when_killed_at_random_then_a_reader_always_sees_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, [0] * 1000)
    code = f"""
from gptwright.core.files import write_json
n = 0
while True:
    n += 1
    write_json({str(path)!r}, [n] * 1000)
"""
    for round_ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(0.5 + 0.07 * round_)
        process.kill()
        process.wait()
        values = read_json(path)
        assert len(values) == 1000
        assert len(set(values)) == 1
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_read_json_when_broken_then_line_and_column_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(UserError, match=r"a\.json:2:7: not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("below", ["f/new", "f/deep/new"])
def test_atomic_write_when_a_file_stands_where_a_folder_should_then_it_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "f").write_text("kept")
    with pytest.raises(UserError, match=r"/f: is a file, not a folder\. Move it away"), atomic_write(tmp_path / below):
        pass
    with pytest.raises(UserError, match=r"/f: is a file, not a folder"), atomic_dir(tmp_path / below):
        pass
    assert (tmp_path / "f").read_text() == "kept"


@pytest.mark.skipif(os.name == "nt", reason="Windows says that access is denied")
def test_atomic_write_when_a_folder_stands_in_its_place_then_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "d" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match=r"/d: is a folder, not a file"), atomic_write(tmp_path / "d") as file:
        file.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
