"""Bits per byte: every byte once, whatever the windows, batches and tokens."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import GptwrightError, UserError
from gptwright.core.ledger import Ledger
from gptwright.evaluate.bpb import bits_per_byte, heldout_windows
from gptwright.evaluate.record import latest_bpb, record_bpb
from gptwright.evaluate.scores import BitsPerByte, compare_bpb
from gptwright.model.config import ModelConfig
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import train_tokenizer


@dataclass
class ByteTokenizer:
    """Ids 0 to 2 are control tokens, a byte b is 3 + b; pairs in ``merges`` take ids after that."""

    merges: list[bytes] = field(default_factory=lambda: [b"th", b"e ", b"\nh"])

    def __post_init__(self) -> None:
        self.table = [b"", b"", b"", *(bytes([b]) for b in range(256)), *self.merges]
        self.vocab_size = len(self.table)
        self.eos_id = 0
        self.byte_lengths = np.array([len(entry) for entry in self.table], dtype=np.uint16)

    def encode(self, text: str) -> list[int]:
        data, ids = text.encode(), []
        while data:
            pair = data[:2]
            if pair in self.merges:
                ids.append(259 + self.merges.index(pair))
            else:
                ids.append(3 + data[0])
            data = data[len(self.table[ids[-1]]) :]
        return ids

    def token_id(self, name: str) -> int | None:
        return {"<|im_start|>": 1, "<|im_end|>": 2}.get(name)


def tiny_model(vocab_size: int = 320, seq_len: int = 32, seed: int = 0) -> Transformer:
    config = ModelConfig(
        vocab_size=vocab_size, n_layers=2, d_model=32, n_heads=2, n_kv_heads=1, d_head=16, d_ff=48, seq_len=seq_len
    )
    model = Transformer(config)
    model.init_weights(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # far enough from uniform that order and context matter
    return model.eval()


TOKENIZER = ByteTokenizer()
TEXTS = [
    "the cat",
    "thé end\nof the story",
    "x",
    "a longer text that needs several windows, the last one not full: the end",
]


@dataclass
class Doc:
    uid: str
    text: str
    messages: list[dict[str, Any]] | None = None


class Uniform:
    """Every one of n tokens equally likely, padding columns very likely: they must not count."""

    def __init__(self, width: int) -> None:
        self.width = width

    def __call__(self, ids):
        return torch.zeros(*ids.shape, 1)

    def logits(self, hidden):
        out = torch.zeros(*hidden.shape[:-1], self.width)
        out[..., TOKENIZER.vocab_size :] = 50.0
        return out

    def parameters(self):
        return [torch.zeros(1)]


def by_hand(model, text):
    """One document in one piece, token by token."""
    ids = [TOKENIZER.eos_id, *TOKENIZER.encode(text)]
    with torch.inference_mode():
        logits = model.logits(model(torch.tensor([ids])))[0, :-1, : TOKENIZER.vocab_size].double()
    logp = logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    return -float(logp.sum()) / math.log(2)


def test_bits_per_byte_in_one_window_then_equals_the_sum_by_hand():
    model = tiny_model(seq_len=128)
    result = bits_per_byte(model, TOKENIZER, TEXTS, 128, batch=3)
    assert result.bytes.tolist() == [len(text.encode()) for text in TEXTS]
    assert result.bits == pytest.approx([by_hand(model, text) for text in TEXTS], rel=1e-5)
    assert result.value == pytest.approx(result.bits.sum() / sum(len(text.encode()) for text in TEXTS))


def test_bits_per_byte_for_a_uniform_model_then_is_known_whatever_the_padding():
    result = bits_per_byte(Uniform(320), TOKENIZER, TEXTS, 8)
    tokens = [len(TOKENIZER.encode(text)) for text in TEXTS]
    assert result.bits == pytest.approx([n * math.log2(TOKENIZER.vocab_size) for n in tokens], rel=1e-6)
    assert result.tokens == sum(tokens)


@settings(max_examples=40, deadline=None)
@given(text=st.text(min_size=1, max_size=60), seq_len=st.integers(1, 20), data=st.data())
def test_bits_per_byte_for_any_text_and_window_then_counts_every_token_once(text, seq_len, data):
    text = text.encode("utf-8", "ignore").decode()
    if not text:
        return
    stride = data.draw(st.integers(1, seq_len))
    result = bits_per_byte(Uniform(262), TOKENIZER, [text], seq_len, batch=data.draw(st.integers(1, 5)), stride=stride)
    assert result.bits[0] == pytest.approx(len(TOKENIZER.encode(text)) * math.log2(262), rel=1e-6)
    assert result.bytes[0] == len(text.encode())


def test_bits_per_byte_in_windows_then_equals_windows_by_hand():
    model, text, seq_len, stride = tiny_model(), TEXTS[3], 16, 8
    sequence = [0, *TOKENIZER.encode(text)]
    expected, done, start = 0.0, 0, 0
    while done < len(sequence) - 1:
        end = min(start + seq_len, len(sequence) - 1)
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([sequence[start:end]])))[0, :, : TOKENIZER.vocab_size]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(sequence[start + 1 : end + 1]), reduction="none")
        expected += float(loss[done - start :].sum()) / math.log(2)
        done, start = end, start + stride
    result = bits_per_byte(model, TOKENIZER, [text], seq_len, stride=stride)
    assert result.bits[0] == pytest.approx(expected, rel=1e-5)
    apart = bits_per_byte(model, TOKENIZER, [text], seq_len, stride=seq_len)
    assert apart.bits[0] != pytest.approx(expected, rel=1e-4)


def test_heldout_windows_then_their_loss_is_bits_per_byte_without_overlap():
    model, seq_len = tiny_model(), 16
    nats = 0.0
    for inputs, targets in heldout_windows(TOKENIZER, TEXTS, seq_len):
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([inputs])))[0, :, : TOKENIZER.vocab_size]
        nats += float(
            torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="sum", ignore_index=-100)
        )
    assert nats / math.log(2) == pytest.approx(
        bits_per_byte(model, TOKENIZER, TEXTS, seq_len, stride=seq_len).bits.sum(), rel=1e-5
    )


def test_bits_per_byte_when_batched_otherwise_then_is_the_same_to_rounding():
    model = tiny_model()
    one = bits_per_byte(model, TOKENIZER, TEXTS, 16, batch=1)
    many = bits_per_byte(model, TOKENIZER, TEXTS, 16, batch=7)
    assert many.bits == pytest.approx(one.bits, rel=1e-5)
    assert many.dataset_hash == one.dataset_hash


def test_bits_per_byte_of_a_conversation_then_counts_content_bytes_only():
    messages = [
        {"role": "user", "content": "the hat?\n"},
        {"role": "assistant", "content": "hé\nhi"},
        {"role": "user", "content": ""},
    ]
    result = bits_per_byte(Uniform(262), TOKENIZER, [Doc("c", "", messages)], 64)
    contents = [TOKENIZER.encode("the hat?"), TOKENIZER.encode("hé\nhi")]
    assert result.tokens == sum(map(len, contents))
    assert result.bytes.tolist() == [len("the hat?") + len("hé\nhi".encode())]
    assert result.bits[0] == pytest.approx(result.tokens * math.log2(262), rel=1e-6)


def test_bits_per_byte_of_a_conversation_then_reads_the_ids_that_training_renders(tmp_path):
    tokenizer = train_tokenizer(["hello there, how are you?", "fine, thanks. and you?"] * 20, 320, tmp_path)
    messages = [{"role": "user", "content": "how are you?"}, {"role": "assistant", "content": "fine, thanks."}]
    seen = []

    class Spy(Uniform):
        def __call__(self, ids):
            seen.append(ids)
            return super().__call__(ids)

    result = bits_per_byte(Spy(320), tokenizer, [Doc("c", "", messages)], 128)
    rendered = tokenizer.render(messages).ids
    assert seen[0][0].tolist() == [tokenizer.eos_id, *rendered][: len(seen[0][0])]
    assert result.bytes[0] == len("how are you?fine, thanks.")


def test_bits_per_byte_when_the_byte_table_lies_then_refuses_to_give_a_number():
    liar = ByteTokenizer()
    liar.byte_lengths = liar.byte_lengths.copy()
    liar.byte_lengths[259] = 3
    with pytest.raises(GptwrightError, match="7 bytes of text became tokens of 8 bytes"):
        bits_per_byte(Uniform(262), liar, ["the cat"], 16)


def test_bits_per_byte_without_text_then_user_error_and_empty_ones_are_counted():
    with pytest.raises(UserError, match="no text"):
        bits_per_byte(Uniform(262), TOKENIZER, ["", ""], 16)
    assert bits_per_byte(Uniform(262), TOKENIZER, ["", "a"], 16).skipped == 1


def test_compare_bpb_of_two_models_then_is_the_difference_of_the_headlines(tmp_path):
    texts = [f"{text} number {i}" for i in range(8) for text in TEXTS]
    a = bits_per_byte(tiny_model(seed=0), TOKENIZER, texts, 32)
    b = bits_per_byte(tiny_model(seed=1), TOKENIZER, texts, 32)
    result = compare_bpb(a, b)
    assert result.delta == pytest.approx(a.value - b.value)
    assert (result.a, result.b) == pytest.approx((a.value, b.value))
    with pytest.raises(UserError, match="different held-out"):
        compare_bpb(a, bits_per_byte(tiny_model(), TOKENIZER, texts[1:], 32))


def test_record_bpb_then_latest_bpb_gives_the_same_numbers_back(tmp_path):
    result = BitsPerByte(("a", "b"), np.array([10.25, 7.5]), np.array([4, 5]), 6, 1)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        record_bpb(ledger, "m", "b2:1", result)
        record_bpb(ledger, "m", "b2:other", BitsPerByte(("a",), np.array([1.0]), np.array([4]), 2, 0))
        back = latest_bpb(ledger, "m", "b2:1")
        assert back is not None
        assert back.to_detail() == result.to_detail()
        assert ledger.evaluations("m")[0].low is not None
        assert ledger.evaluations("m")[1].low is None
        assert latest_bpb(ledger, "m", "b2:none") is None
