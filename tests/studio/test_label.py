"""The labelling page in a browser: by keys, by buttons, kept in the store, and unknown without its address."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.control import ControlStore
from gptwright.corpus.quality import labels

SERVER = Path(__file__).with_name("label_server.py")


@pytest.fixture
def page_url(tmp_path: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(tmp_path / "control.sqlite")], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(20)


def stored(folder: Path) -> list[str]:
    store = ControlStore.open(folder / "control.sqlite")
    found = [value for _, value in sorted(labels.latest(store, "quality").items())]
    store.close()
    return found


@pytest.mark.slow
@pytest.mark.browser
def test_page_when_keys_are_pressed_then_labels_are_kept_undone_and_resumed(
    page_url: str, open_page: Any, tmp_path: Path
) -> None:
    page = open_page(page_url.partition("/label")[0])  # where nothing is, so that other addresses of it are not foreign
    page.goto(page_url)
    page.get_by_text("first <b>text</b>").wait_for()
    page.keyboard.press("g")
    page.get_by_text("second text").wait_for()
    page.keyboard.press("x")
    page.keyboard.press("Control+b")
    page.keyboard.press("b")
    page.get_by_text("third text").wait_for()
    assert stored(tmp_path) == ["good", "bad"]
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("second text").wait_for()
    assert stored(tmp_path) == ["good"]
    page.get_by_role("button", name="Skip").click()
    page.get_by_text("third text").wait_for()
    page.reload()
    page.get_by_text("third text").wait_for()
    page.get_by_role("button", name="Bad").focus()
    page.keyboard.press("Enter")
    page.get_by_text("There is no other document to label.").wait_for()
    page.get_by_text("2 of 5 (1 good, 1 bad)").wait_for()
    assert stored(tmp_path) == ["good", "skip", "bad"]


@pytest.mark.slow
def test_page_when_the_address_is_guessed_then_there_is_none(page_url: str) -> None:
    place = page_url.rpartition("/")[0]
    assert b"first" in urllib.request.urlopen(page_url).read()
    for wrong in (f"{place}/guess", place, place.rpartition("/")[0] + "/"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(wrong)
        assert caught.value.code == 404
        assert b"first" not in caught.value.read()
