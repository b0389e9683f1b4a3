"""What people really hand over: nothing, not text, broken text, too little of it, and files with mistakes."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import gptwright as gw


@pytest.fixture
def bare(tmp_path: Path, tiny: Any) -> Path:
    """A tiny project without any text."""
    return Path(tiny.make(tmp_path / "bare", notes=0, chats=0))


def refused(gptwright: Any, *arguments: str) -> str:
    """The message of a command that ends with the user's exit code."""
    done = gptwright(*arguments)
    assert done.code == 2, done.err
    assert "our fault" not in done.err
    return str(done.err)


def test_config_when_it_has_three_typos_then_all_are_listed_at_once_with_line_and_nearest_name(
    bare: Path, gptwright: Any
) -> None:
    path = bare / "gptwright.toml"
    text = (
        path.read_text()
        .replace("vocab_size", "vocab_siz")
        .replace("seq_len", "seq_length")
        .replace("depth = 1", 'depth = "deep"')
    )
    path.write_text(text)
    lines = text.splitlines()
    for verb in (["status"], ["run"], ["config", "check"], ["chat"]):
        message = refused(gptwright, *verb, "--project", str(bare))
        assert "3 faults" in message
        for key, near in (
            ("vocab_siz", "did you mean vocab_size?"),
            ("seq_length", "did you mean seq_len?"),
            ("depth", "deep"),
        ):
            line = 1 + next(number for number, line in enumerate(lines) if line.startswith(key))
            (told,) = (part for part in message.splitlines() if f"gptwright.toml:{line}" in part)
            assert near in told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[project\nname = "x"', "not valid TOML"),
        ('[project]\nname = "Not A Name"', "project.name"),
        ('[project]\nintent = "evil"', "intent"),
        ('[pretrain]\nmax_time = "soon"', "30s, 10m or 2h"),
        ('[corpus.sources.a]\nuri = "x"\npii = "keepp"', "corpus.sources.a.pii"),
        ('[providers.a]\nbase_url = "ftp://x"', "providers.a.base_url"),
    ],
)
def test_config_when_a_value_is_wrong_then_the_key_is_named(
    tmp_path: Path, gptwright: Any, content: str, said: str
) -> None:
    (tmp_path / "gptwright.toml").write_text(content)
    assert said in refused(gptwright, "status", "--project", str(tmp_path))


def test_config_when_it_is_not_utf8_then_one_clear_line(tmp_path: Path, gptwright: Any) -> None:
    (tmp_path / "gptwright.toml").write_bytes(b'[project]\nname = "caf\xe9"\n')
    assert "not valid TOML" in refused(gptwright, "status", "--project", str(tmp_path))


def test_run_when_the_folder_is_empty_then_says_where_to_put_texts(bare: Path, gptwright: Any) -> None:
    message = refused(gptwright, "run", "--project", str(bare))
    assert "corpus.sources.mine" in message
    assert str(bare / "data") in message


def test_run_when_the_folder_is_missing_then_names_the_source(bare: Path, gptwright: Any) -> None:
    (bare / "data").rmdir()
    assert "corpus.sources.mine" in refused(gptwright, "run", "--project", str(bare))


def test_run_when_there_is_no_source_then_says_how_to_add_one(tmp_path: Path, gptwright: Any) -> None:
    (tmp_path / "gptwright.toml").write_text('[project]\nname = "x"\n')
    assert "gptwright data add" in refused(gptwright, "run", "--project", str(tmp_path))


def test_run_when_no_file_is_text_then_says_so(bare: Path, gptwright: Any) -> None:
    noise = random.Random(1).randbytes(4000)
    (bare / "data" / "noise.txt").write_bytes(noise)
    (bare / "data" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + noise)
    (bare / "data" / "empty.txt").write_bytes(b"")
    assert "no text was found in 3 files" in refused(gptwright, "run", "--project", str(bare))


def test_data_build_when_some_files_are_broken_then_keeps_the_rest_and_names_them(
    bare: Path, tiny: Any, gptwright: Any
) -> None:
    for seed in range(20):
        (bare / "data" / f"{seed}.txt").write_text(tiny.note(seed))
    (bare / "data" / "latin.txt").write_bytes(tiny.note(99).replace("e", "é").encode("latin-1"))
    (bare / "data" / "half.jsonl").write_text(
        '{"text": "A whole row with enough words in it to be kept."}\n{"text": "torn\n'
    )
    (bare / "data" / "noise.txt").write_bytes(random.Random(2).randbytes(2000))
    (bare / "data" / "empty.txt").write_bytes(b"")
    (bare / "data" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(500))
    done = gptwright("data", "build", "--project", str(bare)).ok()
    assert "noise.txt" in done.out
    with gw.Project.open(bare).ledger() as ledger:
        outcomes = {Path(row.locator).name: (row.outcome, row.reason) for row in ledger.files("mine")}
    assert outcomes["empty.txt"][0] == "empty"
    assert outcomes["picture.png"][0] in ("skipped", "unreadable")
    assert outcomes["noise.txt"][0] in ("skipped", "unreadable")
    assert all(reason for outcome, reason in outcomes.values() if outcome in ("skipped", "unreadable"))
    assert outcomes["0.txt"] == ("ok", None)
    texts = [
        item["text"]
        for item in gptwright("data", "sample", "-n", "50", "--project", str(bare), "--json").ok().json["documents"]
    ]
    assert len(texts) >= 20
    assert all("\x00" not in text for text in texts)


def test_pretrain_when_the_corpus_is_too_small_for_one_batch_then_says_how_much_is_missing(
    bare: Path, tiny: Any, gptwright: Any
) -> None:
    (bare / "data" / "a.txt").write_text(tiny.note(1, sentences=3))
    message = refused(gptwright, "run", "--project", str(bare), "--set", "pretrain.batch_tokens=4096")
    assert "are missing" in message
    assert "Add about" in message


@pytest.mark.slow
def test_run_when_there_is_one_document_only_then_ends_with_a_model_that_the_gate_holds_back(
    bare: Path, tiny: Any, gptwright: Any
) -> None:
    (bare / "data" / "book.txt").write_text("\n\n".join(tiny.note(seed) for seed in range(8)))
    done = gptwright("run", "--project", str(bare)).ok()
    if "nothing is held out" in done.err:
        assert "did not pass" in done.out
    gptwright("generate", "Note", "--max-tokens", "4", "--project", str(bare)).ok()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"messages": [{"role": "user", "content": "x"}]}\n', "no conversations"),
        ("not json\n", "no conversations"),
        ("", "the file is empty"),
    ],
)
def test_finetune_when_the_file_holds_no_conversation_then_refused_instead_of_passed_over(
    copy: Path, gptwright: Any, content: str, said: str
) -> None:
    path = copy / "bad.jsonl"
    path.write_text(content)
    assert said in refused(gptwright, "finetune", "--data", str(path), "--project", str(copy))


def test_finetune_when_some_rows_are_wrong_then_names_the_lines_and_trains_on_the_rest(
    copy: Path, tiny: Any, gptwright: Any
) -> None:
    path = copy / "mixed.jsonl"
    rows = [json.dumps(tiny.chat(seed)) for seed in range(20)]
    path.write_text("\n".join([*rows[:3], "{torn", *rows[3:]]) + "\n")
    done = gptwright("finetune", "--data", str(path), "--project", str(copy)).ok()
    assert "mixed.jsonl:4" in done.err
    assert "20 conversations" in done.err


def test_data_add_when_the_name_is_taken_or_the_place_missing_then_the_file_stays(bare: Path, gptwright: Any) -> None:
    before = (bare / "gptwright.toml").read_bytes()
    refused(gptwright, "data", "add", str(bare / "data"), "--name", "mine", "--project", str(bare))
    refused(gptwright, "data", "add", str(bare / "nowhere"), "--project", str(bare))
    refused(
        gptwright,
        "data",
        "add",
        str(bare / "data"),
        "--name",
        "b",
        "--contains-personal-data",
        "perhaps",
        "--project",
        str(bare),
    )
    refused(gptwright, "data", "add", "gopher://example.org/x", "--project", str(bare))
    assert (bare / "gptwright.toml").read_bytes() == before


def test_ledger_when_it_is_no_database_then_says_what_to_do(copy: Path, gptwright: Any) -> None:
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (copy / "work" / name).unlink(missing_ok=True)
    (copy / "work" / "ledger.sqlite").write_bytes(b"not a database" * 100)
    assert "not a readable ledger" in refused(gptwright, "status", "--project", str(copy))


def test_model_when_a_file_of_it_was_changed_then_promotion_is_refused_by_name(copy: Path, gptwright: Any) -> None:
    model = gptwright("release", "list", "--project", str(copy), "--json").json["releases"][0]["model"]
    weights = copy / "work" / "models" / model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = gptwright("release", "promote", model, "--project", str(copy))
    assert done.code == 3
    assert "model.safetensors" in done.err


def test_project_when_its_folder_may_not_be_written_then_one_clear_line(bare: Path, tiny: Any, gptwright: Any) -> None:
    (bare / "data" / "a.txt").write_text(tiny.note(1))
    (bare / "work").write_text("a file where the folder should be")
    done = gptwright("run", "--project", str(bare))
    assert done.code == 2
    assert "Traceback" not in done.err
    assert (bare / "work").is_file()


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 4
    path.write_bytes(raw)


def test_pretrain_when_a_bit_of_a_token_shard_changed_then_refused_by_name_before_a_step(
    copy: Path, gptwright: Any
) -> None:
    (shard,) = (copy / "work" / "tokens").glob("*/shard-00000.bin")
    flip(shard, shard.stat().st_size // 2)
    runs = sorted((copy / "work" / "runs").iterdir())
    ask = ("--project", str(copy))
    for verb in (["pretrain", "--force"], ["pretrain", "--sweep", "lr", "--max-steps", "1"]):
        message = refused(gptwright, *verb, *ask)
        assert str(shard) in message
        assert "run tokens --force" in message
    for folder in (copy / "work" / "runs").iterdir():
        assert folder in runs or not list(folder.rglob("metrics.jsonl"))
    gptwright("run", "tokens", "--force", *ask).ok()  # what the message says
    gptwright("pretrain", "--force", *ask).ok()


def test_finetune_when_a_bit_of_the_conversations_changed_then_refused_by_name_before_a_step(
    copy: Path, gptwright: Any
) -> None:
    (part,) = (copy / "work" / "corpus" / "docs").glob("*.parquet")
    column = next(
        chunk
        for group in [pq.ParquetFile(part).metadata.row_group(0)]
        for chunk in map(group.column, range(group.num_columns))
        if chunk.path_in_schema == "messages"
    )
    start = column.dictionary_page_offset or column.data_page_offset
    flip(part, start + column.total_compressed_size // 2)
    message = refused(gptwright, "finetune", "--force", "--project", str(copy))
    assert str(part) in message
    assert "gptwright data build" in message
