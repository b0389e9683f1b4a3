"""A server's models: loaded once, the least recently used let go."""

from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import UserError
from gptwright.infer import engine as engines
from gptwright.project.project import Project
from gptwright.project.shelf import Shelf


class Loaded:
    def __init__(self, path: Path, **_: str) -> None:
        self.path, self.closed, self.load_now = path, False, (0, 0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def shelf(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(engines.Engine, "load", staticmethod(Loaded))
    return Shelf(Project.open(finished))


def test_engine_when_asked_twice_then_it_is_loaded_once(shelf: Shelf) -> None:
    name, first = shelf.engine("production")
    assert shelf.engine(name) == (name, first)


def test_engine_when_it_stopped_after_a_fault_then_it_is_loaded_anew(shelf: Shelf) -> None:
    first: Any = shelf.engine("production")[1]
    first.closed = True
    assert shelf.engine("production")[1] is not first


def test_engine_when_more_are_asked_for_than_are_kept_then_the_oldest_idle_one_is_closed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shelf, "KEPT", 1)
    names = [row.id for row in shelf.list() if row.root in (None, row.id)][:2]
    first: Any = shelf.engine(names[0])[1]
    second: Any = shelf.engine(names[1])[1]
    assert (first.closed, second.closed) == (True, False)


def test_engine_when_the_oldest_is_answering_then_it_is_not_closed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shelf, "KEPT", 1)
    names = [row.id for row in shelf.list() if row.root in (None, row.id)][:2]
    first: Any = shelf.engine(names[0])[1]
    first.load_now = (1, 0)
    shelf.engine(names[1])
    assert not first.closed


@pytest.mark.parametrize("name", ["../../etc", "..", "a\\\\b", "nothing-of-that-name"])
def test_engine_when_the_name_is_a_place_or_unknown_then_it_is_refused(shelf: Shelf, name: str) -> None:
    with pytest.raises(UserError, match="no such model"):
        shelf.engine(name)
