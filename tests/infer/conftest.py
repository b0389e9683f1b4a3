"""Tiny random models of each family and a tokenizer of bytes, shared by the tests of the engine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gptwright.infer.engine import Engine
from gptwright.model.config import ModelConfig
from gptwright.model.io import save_model
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer

FAMILIES = ("modern", "llama", "gpt2")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Operators this small lose on two threads, and on a busy machine they wait for each other by the hundred."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """264 ids and a few merges; every byte is a token, so random models emit broken UTF-8 all the time."""
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    train_tokenizer(["the cat sat on the mat and the hat of the cat " * 20], 270, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_dir)


@pytest.fixture(scope="session")
def make_model(tokenizer: Tokenizer) -> Callable[..., Transformer]:
    def make(family: str = "modern", seed: int = 0, seq_len: int = 96) -> Transformer:
        heads = {"modern": (4, 2), "llama": (8, 2), "gpt2": (4, 4)}[family]
        config = ModelConfig(
            family=family,
            vocab_size=tokenizer.padded_vocab_size,
            n_layers=2,
            d_model=64,
            n_heads=heads[0],
            n_kv_heads=heads[1],
            d_head=16,
            d_ff=128,
            seq_len=seq_len,
        )
        model = Transformer(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * 0.2 if parameter.ndim > 1 else 1 + 0.2 * noise)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def model_dirs(
    make_model: Callable[..., Transformer], tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: save_model(make_model(family), root / family, tokenizer_dir=tokenizer_dir) for family in FAMILIES}


@pytest.fixture
def engine(make_model: Callable[..., Transformer], tokenizer: Tokenizer) -> Iterator[Engine]:
    with Engine(make_model(), tokenizer, max_batch=4, prefill_tokens=16) as engine:
        yield engine
