"""A project's run as it is watched: numbers by source, samples, sinks, and what `runs show` and `runs compare` make of it."""

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptwright.corpus.view import documents
from gptwright.evaluate.bpb import bits_per_byte
from gptwright.model.io import load_model
from gptwright.project.heldout import heldout, source_sizes
from gptwright.project.project import Project
from gptwright.project.runs import compare_runs, show_run
from gptwright.project.tracking import onlookers
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train.callbacks import read_samples
from gptwright.train.metrics import read_metrics


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny: Any, gptwright: Any) -> Path:
    more = '\n[corpus.sources.verses]\nuri = "verses"\nlicense = "CC0-1.0"\n\n[tracking]\nsamples_every = 4\nsamples_tokens = 5\n'
    root = tiny.make(tmp_path_factory.mktemp("watching") / "tiny", notes=40, chats=10, toml=tiny.toml + more)
    (root / "verses").mkdir()
    for seed in range(60):
        text = "".join(f"{tiny.note(seed * 7 + line, 1)}And so it goes, {line} of {seed}.\n" for line in range(12))
        (root / "verses" / f"verse-{seed:02}.txt").write_text(text, encoding="utf-8")
    gptwright("run", "pretrain", "--project", str(root), "--json").ok()
    return root


def run_of(root: Path) -> Path:
    return next(path.parent for path in (root / "work" / "runs").glob("*/shape.json"))


def test_heldout_when_the_corpus_has_two_sources_then_each_is_measured_by_itself(root: Path) -> None:
    run = run_of(root)
    row = read_metrics(run / "metrics.jsonl")[-1]
    named = {name.partition("/")[2] for name in row if name.startswith("heldout_bpb/")}
    sizes = source_sizes(root / "work" / "corpus")
    assert named == set(sizes) >= {"verses"}
    assert len(named) == 2
    whole = sum(row[f"heldout_bpb/{name}"] * size for name, size in sizes.items()) / sum(sizes.values())
    assert row["heldout_bpb"] == pytest.approx(whole, rel=1e-6)


def test_heldout_when_measured_while_training_then_is_what_the_evaluation_finds(root: Path) -> None:
    model = load_model(next((root / "work" / "models").glob("tiny-pretrain-*")))
    tokenizer = Tokenizer.load(root / "work" / "tokenizer")
    row = read_metrics(run_of(root) / "metrics.jsonl")[-1]
    for name in source_sizes(root / "work" / "corpus"):
        mine = [one for one in documents(root / "work" / "corpus", "heldout") if one.source == name]
        seq_len = model.config.seq_len
        assert sum(len(one.text.encode()) for one in mine) < 32_000
        found = bits_per_byte(model, tokenizer, mine, seq_len, stride=seq_len)
        # Six steps old, the model still gives some chance to the rows that pad the vocabulary; the evaluation leaves them out.
        assert row[f"heldout_bpb/{name}"] == pytest.approx(found.bits.sum() / found.bytes.sum(), rel=1e-2)


def test_heldout_when_there_are_many_sources_then_the_small_ones_are_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.open(root)
    job: Any = SimpleNamespace(project=project, inputs={"corpus": None})
    monkeypatch.setattr("gptwright.project.heldout._MOST_SOURCES", 1)
    found = heldout(job, Tokenizer.load(root / "work" / "tokenizer"), 64, 4)
    assert found is not None
    assert set(found.sources) == {"other sources"}
    assert found.shares == {"other sources": pytest.approx(1.0)}
    assert all(len(batch.tokens) <= 4 for batch in found.batches)


def test_samples_when_asked_for_then_the_model_writes_on_the_way(root: Path) -> None:
    rows = read_samples(run_of(root))
    assert [(row["step"], row["prompt"]) for row in rows] == [
        (4, "What happened to the cat?"),
        (6, "What happened to the cat?"),
    ]
    assert all(row["text"] for row in rows)


def test_onlookers_when_sinks_are_asked_for_then_their_packages_are_looked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.load(root / "work" / "tokenizer")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    asked = Project.open(root, overrides=['tracking.sinks=["tensorboard","wandb"]'])
    found = onlookers(asked, tokenizer)
    assert [getattr(one, "name", "samples") for one in found] == ["tensorboard", "wandb", "samples"]


def folder_of(work: Path, name: str, lr: float, source: str = "verses") -> None:
    """A run's folder as training leaves it."""
    folder = work / "runs" / name
    folder.mkdir(parents=True)
    rows = []
    for step in range(1, 31):
        row = {
            "step": step,
            "loss": 4 / step + lr,
            "grad_norm": 1.0 + lr,
            "lr_matrix": lr,
            "tokens_per_s": 1000.0 * step,
            "reward": lr,
        }
        row |= {"rss_bytes": 2e9, "grad_norm/blocks.0": 0.5} if step % 10 == 0 else {}
        row |= (
            {"heldout_bpb": 3 / step, f"heldout_bpb/{source}": 3 / step, "heldout_bpb/<b>": 4 / step}
            if step % 15 == 0
            else {}
        )
        rows.append(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps({"train": {"lr_matrix": lr, "seed": 0}}))
    (folder / "result.json").write_text(json.dumps({"steps": 30, "final_loss": 4 / 30 + lr, "explanations": []}))
    spike = {
        "kind": "spike",
        "step": 7,
        "what": "the loss jumped",
        "text": "It is doc-7",
        "fix": "Look at doc-7",
        "documents": [["doc-7", 9.0]],
    }
    (folder / "events.jsonl").write_text(json.dumps(spike) + "\n" if lr > 0.1 else "")


@pytest.fixture
def two_runs(tmp_path: Path) -> Any:
    """A project with two runs in its folder and its ledger."""
    folder_of(tmp_path, "run-a", 0.01)
    folder_of(tmp_path, "run-b", 0.2)

    class Ledger:
        def __enter__(self) -> "Ledger":
            return self

        def __exit__(self, *_: object) -> None: ...

        def run(self, name: str) -> Any:
            if name not in ("run-a", "run-b"):
                return None
            return SimpleNamespace(id=name, stage="pretrain", state="done", started_at="then", meta={"steps": 30})

        def events(self, name: str) -> list[Any]:
            return [SimpleNamespace(kind="spike", at="then", data={"documents": ["x"]})]

    return SimpleNamespace(work=tmp_path, ledger=Ledger)


def drawn(page: Path) -> dict[str, set[str]]:
    """Charts of a page: title -> names of its curves. The page has to be well-formed where it is drawn."""
    text = page.read_text()
    found = {}
    for part in text.split("<svg ")[1:]:
        root = ET.fromstring("<svg " + part.partition("</svg>")[0] + "</svg>")
        curves = {e[0].text for e in root.iter() if e.tag.endswith("polyline")}
        found[root.attrib["aria-label"]] = {name or "" for name in curves}
    return found


def test_runs_show_when_a_run_told_of_itself_then_text_and_page_say_it_and_hold_all_curves(two_runs: Any) -> None:
    data, text = show_run(two_runs, "run-b")
    assert "the loss jumped. It is doc-7. Look at doc-7." in text
    assert data["explanations"][0]["documents"] == [["doc-7", 9.0]]
    assert "verses                       0.200 -> 0.100, best 0.100 after step 30" in text
    assert "gradient norm" in text
    assert "memory, bytes        ▁" in text
    assert max(map(len, text.splitlines())) <= 100
    charts = drawn(Path(data["page"]))
    assert charts["Training loss, nats a target"] == {"loss"}
    assert charts["Held-out text, bits per byte"] == {"heldout_bpb", "verses", "<b>"}
    assert charts["Gradient by layer, norm"] == {"blocks.0"}
    assert charts["reward"] == {"reward"}
    page = Path(data["page"]).read_text()
    assert "the loss jumped" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "explanations" not in show_run(two_runs, "run-a")[0]


def test_runs_compare_when_two_are_given_then_their_curves_lie_over_each_other(two_runs: Any) -> None:
    data, text = compare_runs(two_runs, "run-a", "run-b")
    assert data["settings"] == {"train.lr_matrix": [0.01, 0.2]}
    assert "o run-a, x run-b" in text
    lines = text.splitlines()
    chart = lines[: next(i for i, line in enumerate(lines) if "by step" in line) - 1]
    assert all(any(sign in line.partition("|")[2] for line in chart) for sign in "ox")
    charts = drawn(Path(data["page"]))
    assert charts["Training loss, nats a target"] == {"run-a", "run-b"}
    assert charts["Held-out text, bits per byte"] >= {"run-a: verses", "run-b: verses"}
    assert "Gradient by layer, norm" not in charts
    assert "train.lr_matrix" in Path(data["page"]).read_text()
