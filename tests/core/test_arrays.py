"""Tables kept in the cache folder."""

from pathlib import Path

import numpy as np
import pytest

from gptwright.core import arrays
from gptwright.core.arrays import Arrays, kept_arrays


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setenv("GPTWRIGHT_CACHE", str(tmp_path / "cache"))
    return []


def _maker(made: list[int]) -> Arrays:
    made.append(1)
    return np.arange(5), np.array([2.5], np.float32)


def test_kept_arrays_when_asked_again_then_made_once_and_the_same(made: list[int]) -> None:
    first = kept_arrays(arrays.__name__, lambda: _maker(made))
    again = kept_arrays(arrays.__name__, lambda: _maker(made))
    assert len(made) == 1
    for one, other in zip(first, again, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
        assert not other.flags.writeable


def test_kept_arrays_when_the_file_is_damaged_then_made_anew(made: list[int], tmp_path: Path) -> None:
    kept_arrays(arrays.__name__, lambda: _maker(made))
    (path,) = (tmp_path / "cache" / "arrays").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    assert kept_arrays(arrays.__name__, lambda: _maker(made))[0][4] == 4
    assert len(made) == 2


def test_kept_arrays_when_there_is_no_cache_folder_then_made(made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "cache_dir", lambda: None)
    assert kept_arrays(arrays.__name__, lambda: _maker(made))[1][0] == 2.5
