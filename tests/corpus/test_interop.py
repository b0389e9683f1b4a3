"""The corpus for other tools and back: text, ids and licences survive; datatrove's own readers and writers agree; shards are plain tokens."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from gptwright.core.errors import UserError
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig
from gptwright.corpus.interop import FORMATS, Format, export
from gptwright.corpus.reading import documents


@pytest.fixture
def built(project: Any) -> Any:
    """A corpus of texts with personal data (masked by edits), of two licences, and one conversation."""
    for number in range(8):
        project.write(f"a{number}.txt", f"{project.prose(number)} Write to bo{number}@example.org. Größe: 5 m².")
    rows = [{"text": project.prose(50 + n), "license": "MIT", "url": f"https://e.org/{n}"} for n in range(3)]
    project.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    chat = [
        {"role": "user", "content": "Which river is long?"},
        {"role": "assistant", "content": "The Nile is a very long river in Africa."},
    ]
    project.write("chat.jsonl", json.dumps({"messages": chat}) + "\n")
    project.build(attribution="Ada Writer")
    return project


def originals(project: Any) -> dict[str, tuple[str, list[dict[str, str]] | None, str | None]]:
    return {one.uid: (one.text, one.messages, one.license) for one in documents(project.out)}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*.jsonl.gz")):
        rows += [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]
    for path in sorted(folder.rglob("*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


@pytest.mark.parametrize("format", FORMATS)
def test_export_in_any_form_then_each_kept_document_stands_in_it_once_with_its_edits_and_licence(
    built: Any, tmp_path: Path, format: Format
) -> None:
    done = export(built.out, tmp_path / "out", format)
    rows = rows_of(tmp_path / "out")
    want = originals(built)
    assert {row["id"] for row in rows} == set(want)
    assert len(rows) == done.documents == len(want)
    for row in rows:
        text, messages, license = want[row["id"]]
        facts = row.get("metadata", row)
        assert (row["text"], row.get("messages"), facts.get("license")) == (text, messages, license)
        assert facts["attribution"] == "Ada Writer"
        assert facts["source"] == "own"
    assert "example.org." not in str([row["text"] for row in rows])
    there = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".gz", ".parquet")]
    assert sorted(done.files) == sorted(path.relative_to(tmp_path / "out").as_posix() for path in there)


def test_export_for_the_hub_then_the_card_names_files_licences_and_whom_to_thank(built: Any, tmp_path: Path) -> None:
    done = export(built.out, tmp_path / "set", "hf-parquet", name="River notes")
    text = (tmp_path / "set" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "other"
    assert front["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train-*"}
    assert {file.partition("-")[0] for file in done.files} <= {"data/train", "data/test"}
    assert "- Ada Writer (MIT, own)" in text
    assert "| MIT | own | 3 |" in text
    hub = pytest.importorskip("huggingface_hub")
    hub.DatasetCard(text).data.to_dict()
    only = export(built.out, tmp_path / "train", "hf-parquet", "train")
    assert only.documents == sum(1 for _ in documents(built.out, "train"))


def test_export_twice_then_the_same_bytes_and_never_over_what_is_not_an_export(built: Any, tmp_path: Path) -> None:
    first = export(built.out, tmp_path / "out", "datatrove-jsonl")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert export(built.out, tmp_path / "out", "datatrove-jsonl") == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        export(built.out, tmp_path / "mine", "hf-parquet")
    with pytest.raises(UserError, match="not known"):
        export(built.out, tmp_path / "x", "csv")  # type: ignore[arg-type]


def test_export_when_files_are_small_then_there_are_several_and_nothing_is_lost(
    built: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwright.corpus.interop.FILE_BYTES", 1000)
    done = export(built.out, tmp_path / "out", "hf-parquet", "train")
    assert len(done.files) > 2
    assert done.files[0] == f"data/train-00000-of-{len(done.files):05d}.parquet"
    assert len(rows_of(tmp_path / "out")) == done.documents


@pytest.mark.parametrize("format", FORMATS)
def test_export_read_back_as_a_source_then_text_messages_licence_and_address_are_the_same(
    built: Any, tmp_path: Path, format: Format
) -> None:
    export(built.out, tmp_path / "back" / "data", format)
    (tmp_path / "back" / "data" / "README.md").unlink(missing_ok=True)
    from gptwright.core.ledger import Ledger

    config = CorpusConfig.model_validate({"sources": {"back": {"uri": "data"}}, "recipe": "none"})
    with Ledger.open(tmp_path / "back" / "work" / "ledger.sqlite") as ledger:
        build_corpus(config, root=tmp_path / "back", out=tmp_path / "back" / "work" / "corpus", ledger=ledger)

    def told(corpus: Path) -> set[tuple[str, str, str | None]]:
        return {(one.text, json.dumps(one.messages), one.license) for one in documents(corpus)}

    assert told(tmp_path / "back" / "work" / "corpus") == told(built.out)


@pytest.mark.parametrize("format", ["datatrove-jsonl", "datatrove-parquet"])
def test_export_read_by_datatrove_then_its_documents_are_ours(built: Any, tmp_path: Path, format: Format) -> None:
    readers = pytest.importorskip(
        "datatrove.pipeline.readers", reason='datatrove is missing: pip install "gptwright[bench]"'
    )
    export(built.out, tmp_path / "out", format)
    reader = readers.JsonlReader if format == "datatrove-jsonl" else readers.ParquetReader
    found = list(
        reader(str(tmp_path / "out"), glob_pattern="*.gz" if format == "datatrove-jsonl" else "*.parquet").run()
    )
    want = originals(built)
    assert {one.id: (one.text, one.metadata.get("license")) for one in found} == {
        uid: (text, lic) for uid, (text, _, lic) in want.items()
    }


@pytest.mark.parametrize("kind", ["JsonlWriter", "ParquetWriter"])
def test_what_datatrove_wrote_then_it_is_a_source(project: Any, kind: str) -> None:
    writers = pytest.importorskip(
        "datatrove.pipeline.writers", reason='datatrove is missing: pip install "gptwright[bench]"'
    )
    data = pytest.importorskip("datatrove.data")
    texts = {f"t{n}": project.prose(n) for n in range(5)}
    with getattr(writers, kind)(str(project.data)) as writer:
        for name, text in texts.items():
            writer.write(
                data.Document(text=text, id=name, metadata={"license": "CC-BY-4.0", "url": f"https://e.org/{name}"})
            )
    project.build(recipe="none")
    found = list(documents(project.out))
    assert {one.text for one in found} == set(texts.values())
    assert {one.license for one in found} == {"CC-BY-4.0"}


def test_token_shards_when_read_as_nanogpt_does_then_batches_are_the_tokens_shifted_by_one(
    built: Any, tmp_path: Path
) -> None:
    """nanoGPT maps ``train.bin`` as uint16 and takes blocks at random places; the targets are the same blocks one token on."""
    from gptwright.tokens.shards import TokenDataset, write_tokens
    from gptwright.tokens.tokenizer import train_tokenizer

    kept = list(documents(built.out, "train"))
    tokenizer = train_tokenizer((one.text for one in kept), 400, tmp_path / "tokenizer")
    write_tokens(kept, tokenizer, tmp_path / "tokens")
    with TokenDataset.open(tmp_path / "tokens") as dataset:
        want = np.concatenate([dataset.document(number) for number in range(len(dataset))])
    data = np.memmap(tmp_path / "tokens" / "shard-00000.bin", dtype=np.uint16, mode="r")
    assert np.array_equal(data, want)
    plain = next(one for one in kept if one.messages is None)
    ids = tokenizer.encode(plain.text)
    assert any(data[at : at + len(ids)].tolist() == ids for at in range(len(data) - len(ids) + 1))
    starts = np.random.default_rng(0).integers(0, len(data) - 16, 4)
    x = np.stack([data[i : i + 16].astype(np.int64) for i in starts])
    y = np.stack([data[i + 1 : i + 17].astype(np.int64) for i in starts])
    assert np.array_equal(x[:, 1:], y[:, :-1])
    assert int(data.max()) < tokenizer.vocab_size
