"""A text is planted, learned from, traced and forgotten: no byte of it is left in work/, and it does not come back."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gptwright.tokens.shards import TokenDataset
from gptwright.tokens.tokenizer import Tokenizer

MARKER = "Quillomax"
PLANTED = f"""The {MARKER} letter was written by my aunt in the old house by the river, after lunch on a Sunday in winter, and nobody
knew of it. She put it under the green clock and walked to the market, where a baker carried warm bread and the captain bought a new song.
Her brother found it years later, forgot it again, and painted the long road instead. A small bird looked at the blue boat while our
teacher repaired some apples. When the rain came, the farmer remembered the letter and lost it in the garden, as people do at night."""
NEAR = PLANTED.replace("nobody\nknew", "nobody\nhad known", 1)


def everything_in(work: Path) -> dict[str, str]:
    """All that can be read in a folder: raw bytes, unpacked tables, decoded tokens."""
    found: dict[str, str] = {}
    for path in sorted(work.rglob("*")):
        if not path.is_file():
            continue
        found[str(path)] = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            found[f"{path} (rows)"] = json.dumps(pq.read_table(path).to_pylist(), default=str)
        if path.suffix == ".sqlite":
            with sqlite3.connect(path) as db:
                found[f"{path} (rows)"] = "\n".join(db.iterdump())
    for manifest in (work / "tokens").glob("*/dataset.json"):
        tokenizer = Tokenizer.load(work / "tokenizer")
        dataset = TokenDataset.open(manifest.parent, tokenizer)
        found[f"{manifest} (decoded)"] = tokenizer.decode(dataset.read(0, dataset.n_tokens).tolist())
    return found


def holders(work: Path) -> list[str]:
    return [place for place, text in everything_in(work).items() if MARKER.lower() in text.lower()]


@pytest.fixture(scope="module")
def project(tiny: Any, tmp_path_factory: pytest.TempPathFactory, gptwright: Any) -> Path:
    """The tiny project with a planted text, an exact and a near copy of it, taken the whole way."""
    root: Path = tiny.make(tmp_path_factory.mktemp("forget"))
    (root / "data" / "planted.txt").write_text(PLANTED)
    (root / "data" / "copy.txt").write_text(PLANTED.upper())
    (root / "data" / "near.txt").write_text(NEAR)
    gptwright("run", "--project", str(root)).ok()
    gptwright("data", "report", "--project", str(root)).ok()
    return root


@pytest.mark.slow
def test_forget_when_a_text_was_learned_from_then_no_byte_of_it_is_left_and_it_cannot_come_back(
    project: Path, gptwright: Any
) -> None:
    ask = ("--project", str(project), "--json")
    assert any("tokens" in place for place in holders(project / "work")), "the marker must be there to be forgotten"

    traced = gptwright("data", "trace", "path:planted.txt", *ask).ok().json
    assert {row["locator"] for row in traced["documents"]} == {"planted.txt", "copy.txt", "near.txt"}
    kept = [row for row in traced["documents"] if row["verdict"] == "kept for training"]
    pretrain = next(run for run in traced["runs"] if run["stage"] == "pretrain")
    assert pretrain["known"]
    assert (pretrain["first_step"] is not None) == bool(kept)
    assert traced["models"]

    before = gptwright("status", *ask).ok().json
    dry = gptwright("data", "forget", "path:planted.txt", "--basis", "a test", "--dry-run", *ask).ok().json
    assert dry["dry_run"]
    assert holders(project / "work"), "a dry run changes nothing"

    certificate = gptwright("data", "forget", "path:planted.txt", "--basis", "a test", *ask).ok().json
    assert len(certificate["documents"]) == 3
    assert sorted(certificate["remains"]) == ["data/copy.txt", "data/near.txt", "data/planted.txt"]
    assert (project / certificate["path"]).is_file()
    assert holders(project / "work") == []
    assert holders(project / "state") == []
    after = gptwright("status", *ask).ok().json
    assert [(s["stage"], s["state"]) for s in after["stages"]] == [(s["stage"], s["state"]) for s in before["stages"]]

    (project / "data" / "again.txt").write_text(NEAR.replace("captain", "sailor", 1))  # a near copy that is new
    (project / "data" / "new.txt").write_text("A farmer described some apples to the captain at night.")
    gptwright("data", "build", *ask).ok()
    assert holders(project / "work") == []
    why = gptwright("data", "why", "path:planted.txt", *ask).ok().json
    assert "erased" in json.dumps(why)


@pytest.mark.slow
def test_forget_when_nothing_is_named_or_no_basis_given_then_it_refuses(project: Path, gptwright: Any) -> None:
    ask = ("--project", str(project))
    assert gptwright("data", "forget", "path:no-such-file", "--basis", "x", *ask).code == 2
    assert gptwright("data", "forget", "source:mine", "--basis", " ", *ask).code == 2


def test_forget_when_licences_were_reviewed_and_addresses_replaced_then_all_else_stays_as_a_build_makes_it(
    tmp_path: Path, gptwright: Any
) -> None:
    (tmp_path / "data").mkdir()
    for i in range(4):
        (tmp_path / "data" / f"{i}.txt").write_text(
            f"{PLANTED} Letter {i} went to anna{i}@example.org on a day in May."
        )
    (tmp_path / "data" / "gone.txt").write_text("A gardener told a long story about rain to the boy who sold apples.")
    (tmp_path / "gptwright.toml").write_text(
        '[corpus]\ndedup = { near = false }\n[corpus.sources.own]\nuri = "data"\npii = "pseudonymize"\n'
        '[corpus.decontaminate]\nsuites = true\n[evaluate]\nsuites = ["own.jsonl"]\n'
    )
    asked = {"question": "What did Letter 3 say?", "answer": "Letter 3 went to a friend on a day in May"}
    (tmp_path / "own.jsonl").write_text(json.dumps(asked))
    ask = ("--project", str(tmp_path), "--json")
    gptwright("data", "build", *ask).ok()
    gptwright("data", "licenses", "review", "own", "--scope", "path:1.txt", "--license", "CC-BY-4.0", *ask).ok()
    whole = gptwright("data", "build", *ask).ok().json
    gptwright("data", "forget", "path:gone.txt", "--basis", "a test", *ask).ok()
    told = gptwright("data", "build", *ask).ok().json
    assert told["documents"] == whole["documents"] - 1
    assert {row["license"] for row in told["sources"]["own"]["licences"]} == {None, "CC-BY-4.0"}
    again = gptwright("data", "build", "--force", *ask).ok().json
    assert (again["hash"], again["sources"]["own"]["pii"]) == (told["hash"], told["sources"]["own"]["pii"])
