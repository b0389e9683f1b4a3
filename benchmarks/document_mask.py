"""What the document mask costs: steps with and without it, in turn, on rows that hold several documents.

Run: python benchmarks/document_mask.py [--quick]. CPU time is compared; on a busy machine wall time says little.
"""

import sys
import time
from itertools import pairwise

import numpy as np

from gptwright.model.config import ModelConfig
from gptwright.model.transformer import Transformer
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.data import Work
from gptwright.train.stepper import Stepper

TOKENS, VOCAB = 8192, 4096


def rows(seq_len: int, mean: int) -> Work:
    """Random tokens in documents of exponentially distributed length."""
    draw = np.random.default_rng(0)
    shape = (TOKENS // seq_len, seq_len)
    tokens, segments = draw.integers(0, VOCAB, shape), np.zeros(shape, dtype=np.int64)
    for row in segments:
        edges = [0, *np.cumsum(np.maximum(4, draw.exponential(mean, 1 + 8 * seq_len // mean).astype(int))).tolist()]
        for number, (a, b) in enumerate(pairwise(edges)):
            row[a:b] = number
    return Work(tokens, np.roll(tokens, -1, 1), segments=segments)


def measure(width: int, layers: int, seq_len: int, mean: int, dtype: str, repeats: int) -> str:
    """One line of the table."""
    shape = ModelConfig(
        vocab_size=VOCAB, n_layers=layers, d_model=width, n_heads=width // 64, n_kv_heads=width // 64, d_head=64,
        d_ff=round(width * 8 / 3 / 64) * 64, seq_len=seq_len,
    )  # fmt: skip
    batch, steppers = rows(seq_len, mean), {}
    for mask in ("off", "on"):
        model = Transformer(shape)
        model.init_weights(0)
        config = TrainConfig(max_steps=1, dtype=dtype, document_mask=mask, threads=2)
        steppers[mask] = Stepper(model, config, machine.choose(config), rows=len(batch.tokens))
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    for step in range(repeats + 2):
        for mask in ("off", "on") if step % 2 else ("on", "off"):
            begin = time.process_time()
            result = steppers[mask].gradients(batch)
            steppers[mask].apply(step, 0.1, result.grad_norm)
            seconds[mask].append(time.process_time() - begin)
    off, on = (float(np.median(seconds[mask][2:])) for mask in ("off", "on"))
    return f"{width:5} {layers:3} {seq_len:6} {mean:7} {dtype:9} {off:8.2f} {on:8.2f} {on / off:7.3f}"


@machine.kept_memory()
def main() -> None:
    """Print the table."""
    quick = "--quick" in sys.argv
    print("width  layers  row  mean doc  dtype   off [s]   on [s]   ratio")
    for mean in (60, 200, 400, 2000):
        print(measure(384, 4, 512, mean, "bfloat16", 4 if quick else 9), flush=True)
    if not quick:
        print(measure(256, 4, 256, 100, "bfloat16", 9), flush=True)
        print(measure(384, 4, 1024, 300, "bfloat16", 9), flush=True)
        print(measure(384, 4, 512, 100, "float32", 5), flush=True)


if __name__ == "__main__":
    main()
