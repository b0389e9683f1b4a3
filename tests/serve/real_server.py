"""The real engine with a tiny random model behind the server, as a process of its own: its memory and its end can be looked at from outside.

Prints its address, then "stopped" after SIGTERM. ``tests/serve/test_load.py`` and ``test_faults.py`` start it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gptwright.core.control import ControlStore
from gptwright.infer.engine import Engine
from gptwright.model.config import ModelConfig
from gptwright.model.transformer import Transformer
from gptwright.serve.app import create_app
from gptwright.serve.config import ServeConfig
from gptwright.serve.protocols import ModelInfo
from gptwright.serve.run import serve
from gptwright.tokens.tokenizer import train_tokenizer

MODEL = "tiny-pretrain-0123456789"


class OneModel:
    """The models of a project with one model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> Sequence[ModelInfo]:
        """The one."""
        return [ModelInfo(MODEL, 1_790_000_000)]

    def engine(self, id_or_alias: str) -> tuple[str, Any]:
        """The one."""
        return MODEL, self._engine


def tiny_engine(folder: Path, seq_len: int = 256, max_batch: int = 32) -> Engine:
    """Two layers with weights large enough that each prompt has an answer of its own."""
    tokenizer = train_tokenizer(["the cat sat on the mat and the hat of the cat " * 20], 270, folder)
    config = ModelConfig(
        family="modern",
        vocab_size=tokenizer.padded_vocab_size,
        n_layers=2,
        d_model=64,
        n_heads=4,
        n_kv_heads=2,
        d_head=16,
        d_ff=128,
        seq_len=seq_len,
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.2 if parameter.ndim > 1 else 1 + 0.2 * noise)
    return Engine(model, tokenizer, max_batch=max_batch)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", help="The control store: a file or a URL.")
    parser.add_argument("--config", default="{}", help="Settings of [serve], as JSON.")
    parser.add_argument("--seq-len", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = ServeConfig.model_validate({"port": 0, **json.loads(options.config)})
    control = ControlStore.open(options.state) if options.state else None
    with TemporaryDirectory() as folder, tiny_engine(Path(folder) / "t", options.seq_len) as engine:
        app = create_app(OneModel(engine), config=config, control=control)
        serve(app, config, control=control, on_start=lambda url: print(url, flush=True))
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
