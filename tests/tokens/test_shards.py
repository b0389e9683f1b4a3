"""Shards: standard bytes, checked on opening, all or nothing."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gptwright.core.errors import UserError
from gptwright.tokens.erase import erase_documents
from gptwright.tokens.shards import TokenDataset, write_tokens
from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer

from .conftest import Doc


@pytest.fixture
def written(tokenizer: Tokenizer, docs: list[Doc], tmp_path: Path) -> Path:
    write_tokens(docs, tokenizer, tmp_path / "set", shard_tokens=3000)
    return tmp_path / "set"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_documents_come_back_token_for_token_with_their_ids(
    tokenizer: Tokenizer, docs: list[Doc], written: Path
) -> None:
    dataset = TokenDataset.open(written, tokenizer)
    assert len(dataset.shards) > 2
    assert len(dataset) == len(docs)
    for index, doc in enumerate(docs):
        ids = tokenizer.render(doc.messages).ids if doc.messages else tokenizer.encode(doc.text)
        assert dataset.document(index).tolist() == [*ids, tokenizer.eos_id]
        assert dataset.uid(index) == doc.uid
        assert dataset.find(doc.uid) == [index]


def test_bin_is_a_plain_memmap_as_nanogpt_reads_it(tokenizer: Tokenizer, docs: list[Doc], written: Path) -> None:
    data = np.memmap(written / "shard-00000.bin", dtype=np.uint16, mode="r")
    expected = tokenizer.encode(docs[0].text)
    assert data[: len(expected)].tolist() == expected


def test_result_counts_tokens_documents_and_bytes(tokenizer: Tokenizer, docs: list[Doc], tmp_path: Path) -> None:
    plain = docs[:-1]
    result = write_tokens(plain, tokenizer, tmp_path / "set")
    assert result.documents == len(plain)
    assert result.bytes == sum(len(doc.text.encode()) for doc in plain)
    assert result.tokens == sum(len(tokenizer.encode(doc.text)) + 1 for doc in plain)
    assert TokenDataset.open(tmp_path / "set").hash == result.hash


def test_vocabulary_above_65536_is_written_as_u32(
    tokenizer: Tokenizer, docs: list[Doc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "vocab_size", 70_000)
    write_tokens(docs, tokenizer, tmp_path / "set")
    dataset = TokenDataset.open(tmp_path / "set")
    assert dataset.shards[0].tokens.dtype == np.dtype("<u4")
    assert dataset.document(0).tolist() == [*tokenizer.encode(docs[0].text), 0]


def test_hash_changes_with_one_letter_and_with_the_order(tokenizer: Tokenizer, docs: list[Doc], tmp_path: Path) -> None:
    changed = [*docs[:3], Doc(docs[3].uid, docs[3].text + "!"), *docs[4:]]
    swapped = [docs[1], docs[0], *docs[2:]]
    hashes = {write_tokens(d, tokenizer, tmp_path / "set").hash for d in (docs, changed, swapped, docs)}
    assert len(hashes) == 3


@pytest.mark.parametrize("kind", ["bin", "idx", "map"])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_one_flipped_bit_is_refused_and_the_shard_named(written: Path, kind: str, where: float) -> None:
    TokenDataset.open(written)  # a shard found good earlier in this process is checked again once its file changes
    path = written / f"shard-00001.{kind}"
    raw = bytearray(path.read_bytes())
    raw[int(where * (len(raw) - 1))] ^= 4
    path.write_bytes(raw)
    with pytest.raises(UserError, match=rf"shard-00001\.{kind}"):
        TokenDataset.open(written)


def test_missing_and_short_files_are_named(written: Path) -> None:
    path = written / "shard-00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match="bytes instead of"):
        TokenDataset.open(written)
    path.unlink()
    with pytest.raises(UserError, match=r"shard-00001\.bin"):
        TokenDataset.open(written)
    with pytest.raises(UserError, match="no token data set"):
        TokenDataset.open(written / "nowhere")


def test_open_with_another_tokenizer_is_refused(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another tokenizer"):
        TokenDataset.open(written, train_tokenizer(["other other"], 300, tmp_path / "other"))


def test_no_documents_is_an_error_and_leaves_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no document"):
        write_tokens([], tokenizer, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_malformed_chat_is_named_and_the_former_set_stays(tokenizer: Tokenizer, docs: list[Doc], written: Path) -> None:
    before = digests(written)
    with pytest.raises(UserError, match=f"document {'e' * 32}"):
        write_tokens([*docs, Doc("e" * 32, "", [{"role": "robot", "content": "x"}])], tokenizer, written)
    assert digests(written) == before


def test_full_disk_while_writing_says_so_and_leaves_nothing(
    tokenizer: Tokenizer, docs: list[Doc], tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tok")
    script = (
        "import resource, signal, sys; from pathlib import Path; from pydoc_data.topics import topics\n"
        "from gptwright.tokens.tokenizer import Tokenizer; from gptwright.tokens.shards import write_tokens\n"
        "from gptwright.core.errors import UserError; from types import SimpleNamespace as N\n"
        "tok = Tokenizer.load(sys.argv[1]); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "try: write_tokens([N(uid='u', text=t, messages=None) for t in topics.values()], tok, Path(sys.argv[2]))\n"
        "except UserError as error: print(error)"
    )
    if os.name == "nt":
        pytest.skip("needs RLIMIT_FSIZE")
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "tok"), str(tmp_path / "set")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "disk is full" in out.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["tok"]


@pytest.mark.slow
def test_writer_killed_at_any_point_leaves_no_set_and_a_rerun_gives_the_same_bytes(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tok")
    script = (
        "import sys, time; from pydoc_data.topics import topics; from types import SimpleNamespace as N\n"
        "from gptwright.tokens.tokenizer import Tokenizer; from gptwright.tokens import shards\n"
        "shards._BATCH_DOCS = 10\n"
        "def feed():\n"
        "    for i, name in enumerate(sorted(topics)):\n"
        "        print(i, flush=True); yield N(uid=name, text=topics[name], messages=None)\n"
        "shards.write_tokens(feed(), Tokenizer.load(sys.argv[1]), sys.argv[2], shard_tokens=20000)"
    )

    def start(target: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", script, str(tmp_path / "tok"), str(target)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    with start(tmp_path / "whole") as child:
        assert child.stdout is not None
        child.stdout.read()
    killed = 0
    for lines in (1, 25, 60):
        with start(tmp_path / "set") as child:
            assert child.stdout is not None
            for _ in range(lines):
                child.stdout.readline()
            time.sleep(0.002 * lines)
            child.send_signal(signal.SIGKILL)
        killed += not (tmp_path / "set").exists()
        if (tmp_path / "set").exists():  # it was done before the signal came: then it must be whole
            assert digests(tmp_path / "set") == digests(tmp_path / "whole")
    assert killed
    with start(tmp_path / "set") as child:
        assert child.stdout is not None
        child.stdout.read()
    assert digests(tmp_path / "set") == digests(tmp_path / "whole")


def test_only_answers_records_what_carries_no_loss(tokenizer: Tokenizer, docs: list[Doc], tmp_path: Path) -> None:
    write_tokens(docs[-2:], tokenizer, tmp_path / "set", only_answers=True)
    dataset = TokenDataset.open(tmp_path / "set")
    start = int(dataset.starts[1])
    mask = tokenizer.render(docs[-1].messages or []).loss_mask
    assert not dataset.learns(0, start).any()
    assert dataset.learns(start, len(mask)).astype(int).tolist() == mask
    assert not dataset.learns(start + len(mask), 1).any()


def test_erased_document_is_gone_and_all_else_stays_in_place(
    tokenizer: Tokenizer, docs: list[Doc], written: Path
) -> None:
    before = TokenDataset.open(written)
    old = [before.document(index).tolist() for index in range(len(docs))]
    size, origin, former = before.size_bytes, before.origin, before.hash
    result, changed = erase_documents(written, {docs[4].uid, "0" * 31 + "x"}, tokenizer)
    after = TokenDataset.open(written, tokenizer)
    assert result is not None
    assert len(changed) == 1
    assert (after.hash, after.origin) == (result.hash, origin)
    assert after.hash != former
    assert after.size_bytes == size - len(docs[4].text.encode())
    for index in range(len(docs)):
        if index == 4:
            assert set(after.document(index).tolist()) == {tokenizer.eos_id}
            assert not after.learns(int(after.starts[4]), len(old[4])).any()
        else:
            assert after.document(index).tolist() == old[index]
            assert after.learns(int(after.starts[index]), len(old[index])).all()
    assert erase_documents(written, {"0" * 31 + "x"}, tokenizer) == (None, [])
