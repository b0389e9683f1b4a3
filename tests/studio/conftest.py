"""A server with pages in a process of its own, and a real Chromium."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.corpus_files import write_corpus

SERVER = Path(__file__).with_name("page_server.py")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    command = [sys.executable, str(SERVER), *arguments]
    # In a scratch folder: whatever a page's framework wants to write must not land in the source tree.
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(20)
            left = os.listdir(folder)
        assert left == []


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser, or a skip that says how to get one; in CI its absence is a failure."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        text = "no Chromium here. Run: sudo apt-get install -y chromium"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        # A fresh home is a fresh profile: nothing of the user's browser takes part.
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=FLAGS, env={**os.environ, "HOME": home}
        )
        yield browser
        browser.close()


TALE = "Once upon a time there was a small boat that wanted to see the sea."


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that holds a sentence of the fake's story."""
    texts = [
        {"text": f"{TALE} It was green.", "title": "Tales of the coast", "license": "CC-BY-4.0", "source": "tales"}
    ]
    return write_corpus(tmp_path_factory.mktemp("corpus"), [texts])


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The control store of the server that tests share."""
    return tmp_path_factory.mktemp("state") / "control.sqlite"


@pytest.fixture(scope="session")
def url(state: Path, corpus: Path) -> Iterator[str]:
    with server("--delay", "0.001", "--state", str(state), "--corpus", str(corpus)) as address:
        yield address


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    """Open a page; at the end check that it asked this machine only, and that no script failed."""
    contexts = []
    foreign: list[str] = []
    errors: list[str] = []

    def begin(address: str, **options: Any) -> Any:
        context = chromium.new_context(
            **{"viewport": {"width": 1280, "height": 860}, "color_scheme": "light", **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        origin = "/".join(address.split("/")[:3])
        local = (origin, origin.replace("http", "ws", 1), "data:", "blob:", "about:")
        page.on("request", lambda request: None if request.url.startswith(local) else foreign.append(request.url))
        page.on("websocket", lambda socket: None if socket.url.startswith(local) else foreign.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield begin
    for context in contexts:
        context.close()
    assert foreign == []
    assert errors == []


@pytest.fixture
def serve_pages() -> Any:
    return server
