"""What half as many key heads as query heads are worth when answering: bytes of the cache a token, and time of a token after a long context.

``python benchmarks/grouped_keys.py`` answers with the built-in engine by two random models that differ in nothing else, in turns in one process,
one thread; the best of all rounds counts, by processor time. What it costs in loss is in ``ablations.py`` ("a key head for each query head").
"""

import json
import random
import tempfile
import time
from pathlib import Path

import torch

from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine, fast_dtype
from gptwright.model.cost import kv_cache_bytes
from gptwright.model.presets import modern
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import train_tokenizer
from train_common import arguments, machine

VOCAB, SEQ_LEN, NEW = 4096, 4096, 48


def opened(n_layers: int, n_kv_heads: int, folder: Path) -> Engine:
    """An engine over random weights."""
    config = modern(depth=n_layers, vocab_size=VOCAB, seq_len=SEQ_LEN).model_copy(update={"n_kv_heads": n_kv_heads})
    model = Transformer(config)
    model.init_weights(0)
    tokenizer = train_tokenizer(["a text to read, and a text to write"], 272, folder)
    return Engine(model.to(fast_dtype("cpu")), tokenizer, max_batch=8, speculative=False)


def seconds(engine: Engine, prompts: list[list[int]], tokens: int) -> float:
    """Processor seconds of answers so long; the prompts are in the cache already."""
    begin = time.process_time()
    engine.generate(prompts, GenerationConfig(max_tokens=tokens, temperature=0.0, ignore_eos=True))
    return time.process_time() - begin


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--depth", type=int, default=4, help="blocks; four heads of 64 at 4")
    parser.add_argument("--contexts", type=int, nargs="+", default=[256, 4000])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = modern(depth=args.depth, vocab_size=VOCAB, seq_len=SEQ_LEN)
    heads = (shape.n_kv_heads, shape.n_heads)
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        engines = [opened(args.depth, count, Path(folder) / str(count)) for count in heads]
        for context in args.contexts:
            rng = random.Random(context)
            prompts = [[rng.randrange(16, 256) for _ in range(context)] for _ in range(args.streams)]
            best = [float("inf")] * 2
            for engine in engines:
                seconds(engine, prompts, 1)
            for _ in range(args.rounds):
                for side, engine in enumerate(engines):
                    one = seconds(engine, prompts, 1)
                    best[side] = min(best[side], (seconds(engine, prompts, 1 + NEW) - one) / NEW)
            rows += [
                {
                    "context": context,
                    "key_heads": count,
                    "cache_bytes_a_token": kv_cache_bytes(shape.model_copy(update={"n_kv_heads": count}), 1),
                    "cpu_ms_a_step": 1e3 * best[side],
                }
                for side, count in enumerate(heads)
            ]
        for engine in engines:
            engine.close()
    if args.json:
        print(json.dumps({"name": "grouped_keys", "streams": args.streams, "machine": machine(), "rows": rows}))
        return
    print(f"{args.depth} layers, {shape.n_heads} query heads, {args.streams} answers at once, one thread; {machine()}")
    print("context  key heads  cache, bytes a token  CPU ms a step")
    for row in rows:
        print(f"{row['context']:7} {row['key_heads']:10} {row['cache_bytes_a_token']:21,} {row['cpu_ms_a_step']:14.2f}")


if __name__ == "__main__":
    main()
