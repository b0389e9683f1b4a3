"""Data sets of a hub: a small one served here, with the addresses that the hub's own client asks; and no hub at all."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.sources.base import Listing
from gptwright.corpus.sources.hub import gather, parse
from gptwright.corpus.sources.kinds import list_source, request_for
from gptwright.corpus.sources.raw import RawStore

pytest.importorskip("huggingface_hub")


def parquet(*texts: str) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), out)
    return out.getvalue()


class Hub:
    """A data set as the hub serves it; ``asked`` are the files that were downloaded."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.card: dict[str, Any] = {}
        self.commit = "a" * 40
        self.asked: list[str] = []
        self.spoil: dict[str, bytes] = {}
        self.status: int | None = None
        self.headers: dict[str, str] = {}

    def info(self) -> dict[str, Any]:
        rows = []
        for name, data in sorted(self.files.items()):
            row: dict[str, Any] = {"rfilename": name, "size": len(data)}
            row["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if name.endswith(".parquet"):
                row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            rows.append(row)
        return {
            "id": "me/set",
            "sha": self.commit,
            "siblings": rows,
            "cardData": self.card,
            "private": False,
            "tags": [],
        }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(head=True)

        def do_GET(self) -> None:
            self.answer(head=False)

        def answer(self, *, head: bool) -> None:
            path = self.path.partition("?")[0]
            body, extra, status = b"", {}, 200
            if served.status:
                status, extra = served.status, served.headers
            elif path.startswith("/api/datasets/me/set"):
                body = json.dumps(served.info()).encode()
                if "/revision/" in path and not path.endswith(("/main", served.commit)):
                    status, body, extra = 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
            elif path.startswith(f"/datasets/me/set/resolve/{served.commit}/"):
                name = path.split(served.commit + "/", 1)[1]
                body = served.spoil.get(name, served.files[name])
                extra = {"ETag": f'"{hashlib.sha256(served.files[name]).hexdigest()}"', "X-Repo-Commit": served.commit}
                if not head:
                    served.asked.append(name)
            else:
                status, extra = 404, {"X-Error-Code": "RepoNotFound"}
            self.send_response(status)
            for key, value in extra.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not head:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def collect(root: Path, uri: str) -> Listing:
    config = SourceConfig(uri=uri)
    gather(request_for("set", config, root))
    return list_source("set", config, root)


def names(listing: Listing) -> list[str]:
    return [file.locator for file in listing.files]


def test_gather_then_data_files_come_with_the_cards_licence(hub: Hub, tmp_path: Path) -> None:
    hub.files = {
        "README.md": b"---\n---\n", "data/train-00000-of-00001.parquet": parquet("a", "b"), "data/test-00000-of-00001.parquet": parquet("c"),
        "script.py": b"evil()", "dataset_infos.json": b"{}", ".gitattributes": b"",
    }  # fmt: skip
    hub.card = {"license": "cc-by-sa-4.0"}
    found = collect(tmp_path, "hf:me/set")
    assert names(found) == ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
    assert (found.licence.id, found.licence.source) == ("CC-BY-SA-4.0", "repository")
    assert pq.read_table(found.files[1].path)["text"].to_pylist() == ["a", "b"]
    assert RawStore(tmp_path / "work/corpus/raw/set").about()["commit"] == hub.commit
    assert names(collect(tmp_path, "hf:me/set#train")) == ["data/train-00000-of-00001.parquet"]
    assert not [path for path in (tmp_path / "work/corpus/raw/set").iterdir() if path.is_dir() and len(path.name) > 2]


def test_gather_again_when_one_file_changed_then_only_it_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"a.jsonl": b'{"text": "a"}\n', "b.jsonl": b'{"text": "b"}\n'}
    collect(tmp_path, "hf:me/set")
    hub.asked.clear()
    hub.files["b.jsonl"] = b'{"text": "bb"}\n'
    hub.commit = "b" * 40
    found = collect(tmp_path, "hf:me/set")
    assert hub.asked == ["b.jsonl"]
    assert [file.path.read_bytes() for file in found.files] == [b'{"text": "a"}\n', b'{"text": "bb"}\n']


CONFIGS = [
    {
        "config_name": "en",
        "data_files": [{"split": "train", "path": "en/train-*"}, {"split": "test", "path": ["en/test.jsonl"]}],
    },
    {"config_name": "de", "data_files": "de/*"},
]


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ("#en", ["en/test.jsonl", "en/train-0.jsonl", "en/train-1.jsonl"]),
        ("#en/train", ["en/train-0.jsonl", "en/train-1.jsonl"]),
        ("#de", ["de/all.jsonl"]),
    ],
)
def test_gather_when_the_card_names_configurations_then_its_patterns_count(
    hub: Hub, tmp_path: Path, part: str, wanted: list[str]
) -> None:
    hub.files = {
        name: name.encode()
        for name in ("en/train-0.jsonl", "en/train-1.jsonl", "en/test.jsonl", "de/all.jsonl", "other.jsonl")
    }
    hub.card = {"configs": CONFIGS}
    assert names(collect(tmp_path, f"hf:me/set{part}")) == wanted


def test_gather_when_a_configuration_must_be_named_then_the_error_lists_them(hub: Hub, tmp_path: Path) -> None:
    hub.files, hub.card = {"en/test.jsonl": b"x"}, {"configs": CONFIGS}
    with pytest.raises(UserError, match=r"2 configurations.*en, de"):
        collect(tmp_path, "hf:me/set")
    with pytest.raises(UserError, match="no configuration fr"):
        collect(tmp_path, "hf:me/set#fr")


@pytest.mark.parametrize("spoiled", [b'{"text": "X"}\n', b'{"text": "a longer one"}\n'])
def test_gather_when_other_bytes_come_than_were_stated_then_they_are_refused(
    hub: Hub, tmp_path: Path, spoiled: bytes
) -> None:
    hub.files, hub.spoil = {"a.jsonl": b'{"text": "a"}\n'}, {"a.jsonl": spoiled}
    with pytest.raises(UserError, match=r"hash is not the one|bytes came where|cannot be reached"):
        collect(tmp_path, "hf:me/set")
    assert not RawStore(tmp_path / "work/corpus/raw/set").finished


@pytest.mark.parametrize(
    ("card", "identity"),
    [
        ({"license": ["mit", "apache-2.0"]}, "MIT AND Apache-2.0"),
        ({"license": "other"}, None),
        ({"license": "other", "license_name": "cdla-permissive-2.0"}, "CDLA-Permissive-2.0"),
        ({"license": "unknown"}, None),
        ({}, None),
    ],
)
def test_gather_when_the_card_says_this_of_licences_then(
    hub: Hub, tmp_path: Path, card: dict[str, Any], identity: str | None
) -> None:
    hub.files, hub.card = {"a.txt": b"words"}, card
    assert collect(tmp_path, "hf:me/set").licence.id == identity


@pytest.mark.parametrize(
    ("status", "headers", "uri", "words"),
    [
        (None, {}, "hf:me/none", "no data set me/none"),
        (None, {}, "hf:me/set@v9", "no revision 'v9'"),
        (403, {"X-Error-Code": "GatedRepo"}, "hf:me/set", "accepted its terms"),
        (None, {}, "hf:me/../x", "names no data set"),
        (None, {}, "hf:me/set", "no parquet"),
    ],
)
def test_gather_when_it_cannot_be_had_then_the_error_says_why(
    hub: Hub, tmp_path: Path, status: int | None, headers: dict[str, str], uri: str, words: str
) -> None:
    hub.files, hub.status, hub.headers = {"model.bin": b"x"}, status, headers
    with pytest.raises(UserError, match=words):
        collect(tmp_path, uri)


def test_gather_when_there_is_no_hub_then_the_error_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UserError,
        match=r"cannot be reached.*hf download --repo-type dataset me/set --local-dir FOLDER.*name the folder",
    ):
        collect(tmp_path, "hf:me/set")


def test_parse_then_dataset_revision_configuration_and_split() -> None:
    found = parse("me/set@v1#en/train", "w")
    assert (found.dataset, found.revision, found.config, found.split) == ("me/set", "v1", "en", "train")
