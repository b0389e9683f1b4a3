"""Training, saving, encoding and decoding."""

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings

from gptwright.core.errors import UserError
from gptwright.tokens import bpe
from gptwright.tokens.show import show
from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer

from .strategies import HARD, hostile_texts


def test_training_twice_gives_the_same_files_byte_for_byte(texts: list[str], tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pydoc_data.topics import topics\n"
        "from gptwright.tokens.tokenizer import train_tokenizer\n"
        "train_tokenizer([topics[n] for n in sorted(topics)][:60], 1024, Path(sys.argv[1]))"
    )
    for threads in ("1", "2"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / threads)],
            env=environment,
            check=True,
            stderr=subprocess.DEVNULL,
        )
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["chat_template.jinja", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_control_tokens_when_trained_have_ids_0_to_7(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_id(name) for name in bpe.SPECIALS] == list(range(8))
    assert tokenizer.control_ids == frozenset(range(8))
    assert (tokenizer.eos_id, tokenizer.im_end_id, tokenizer.stop_ids, tokenizer.bos_id) == (0, 2, {0, 2}, None)
    assert (tokenizer.vocab_size, tokenizer.padded_vocab_size, len(tokenizer.byte_lengths)) == (1024, 1024, 1024)


def test_training_when_killed_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pydoc_data.topics import topics\n"
        "from gptwright.tokens.tokenizer import train_tokenizer\n"
        "def feed():\n"
        "    while True:\n"
        "        print('.', flush=True); yield from topics.values()\n"
        "train_tokenizer(feed(), 1024, Path(sys.argv[1]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "tok")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    child.stdout.read(1)
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (tmp_path / "tok").exists()


def test_vocabulary_when_corpus_is_too_small_is_smaller_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = train_tokenizer(["hello hello"], 1000, tmp_path / "tok")
    assert 264 < tokenizer.vocab_size < 300
    assert "instead of 1,000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts_given", "size", "said"), [(["a"], 263, "vocab_size 263"), ([], 1000, "no text"), ([""], 1000, "no text")]
)
def test_training_when_impossible_says_what_to_do(tmp_path: Path, texts_given: list[str], size: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        train_tokenizer(texts_given, size, tmp_path / "tok")
    assert not (tmp_path / "tok").exists()


def test_training_on_a_line_of_megabytes_ends_soon(tmp_path: Path) -> None:
    import random

    noise = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=3_000_000))
    start = time.perf_counter()
    tokenizer = train_tokenizer([noise, "real words, real words"], 400, tmp_path / "tok")
    assert tokenizer.decode(tokenizer.encode(noise[:5000])) == noise[:5000]
    assert time.perf_counter() - start < 5


@settings(max_examples=200, deadline=None)
@given(text=hostile_texts)
def test_encode_any_text_round_trips_without_control_ids_and_counts_its_bytes(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not tokenizer.control_ids.intersection(ids)
    assert int(tokenizer.byte_lengths[ids].sum()) == len(text.encode())


def test_encode_when_text_has_lone_surrogates_replaces_them(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud83d\ude00b\ud800c")) == "a😀b\ufffdc"


def test_encode_when_text_is_cut_into_pieces_gives_the_ids_of_the_whole(tokenizer: Tokenizer, texts: list[str]) -> None:
    whole = "\n".join(texts[:20]) + "".join(HARD) * 20
    for limit in (50, 97, 1000):
        pieces = bpe.split_text(whole, limit)
        assert "".join(pieces) == whole
        assert max(map(len, pieces)) <= limit
    natural = "\n".join(texts)
    parts = [token for piece in bpe.split_text(natural, 3000) for token in tokenizer.encode(piece)]
    assert parts == tokenizer.encode(natural)


def test_encode_batch_over_many_pieces_keeps_texts_apart(
    tokenizer: Tokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [tokenizer.encode(text) for text in texts[:8]]
    monkeypatch.setattr("gptwright.tokens.tokenizer._ENCODE_CHARS", 1500)
    assert tokenizer.encode_batch([*texts[:8], ""]) == [*expected, []]


# src/llama-vocab.cpp, case LLAMA_VOCAB_PRE_TYPE_QWEN2, as llama.cpp spells it
LLAMA_CPP_QWEN2 = (
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)


@settings(max_examples=300, deadline=None)
@given(text=hostile_texts)
def test_words_of_every_text_are_those_of_llama_cpps_expression_in_another_engine(
    tokenizer: Tokenizer, text: str
) -> None:
    regex = pytest.importorskip("regex")
    # Python's \\s also holds U+001C to U+001F, which Unicode's White_Space, Oniguruma and llama.cpp do not.
    # Characters that newer Unicode versions have added are letters for one engine and nothing yet for the other.
    text = "".join(c for c in text if not "\x1c" <= c <= "\x1f" and unicodedata.category(c) != "Cn")
    words = [text[a:b] for _, (a, b) in tokenizer._hf.pre_tokenizer.pre_tokenize_str(text)]
    assert words == regex.findall(LLAMA_CPP_QWEN2, text)


def test_load_when_missing_or_damaged_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3')
    with pytest.raises(UserError, match="not a tokenizer file"):
        Tokenizer.load(tmp_path)


def test_save_into_a_model_directory_keeps_the_hash(tokenizer: Tokenizer, tokenizer_dir: Path) -> None:
    again = Tokenizer.load(tokenizer_dir)
    assert again.hash == tokenizer.hash
    assert again.is_own


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [None, "qwen3", "gpt2"])
def test_transformers_when_it_reloads_the_directory_gives_the_same_ids(
    tokenizer: Tokenizer, tokenizer_dir: Path, texts: list[str], tmp_path: Path, model_type: str | None
) -> None:
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 1024}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.bos_token_id) == (0, 0, None)
    for text in [*texts[:10], *HARD, "".join(HARD)]:
        assert loaded(text)["input_ids"] == tokenizer.encode(text)
        assert loaded.decode(loaded(text)["input_ids"]) == text


def test_show_splits_a_text_into_pieces_with_bytes(tokenizer: Tokenizer) -> None:
    shown = show(tokenizer, "the 日 <|im_end|>")
    assert sum(piece.bytes for piece in shown.pieces) == shown.bytes == len("the 日 <|im_end|>".encode())
    assert "<E6>" in str(shown)  # a byte of the character that has no token of its own
    assert "tokens" in str(shown)
