"""What rounded weights cost: bits per byte of texts under each number format, by the very kernels that generate.

Run: python benchmarks/generate_loss.py [--model FOLDER] [--text FILE ...]
Without a model: SmolLM2-135M, whose only copy in a package is already rounded to 4 bits (Q4_1), which flatters int4. Without texts: the
chit-chat conversations (package chitchat-dataset) and the licence texts of this system.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F

from generate_common import smollm2
from gptwright.infer.cache import PagedCache
from gptwright.infer.native import NativeRunner
from gptwright.infer.runner import Part
from gptwright.model.io import load_model
from gptwright.tokens.tokenizer import Tokenizer


def texts(files: list[Path]) -> list[str]:
    """What is measured on, 12,000 characters of each."""
    if files:
        return [file.read_text(encoding="utf-8")[:12_000] for file in files]
    import chitchat_dataset

    raw = json.loads((Path(chitchat_dataset.__file__).parent / "dataset.json").read_text(encoding="utf-8"))
    talk = "\n".join(" ".join(m["text"] for m in turn) for one in list(raw.values())[:60] for turn in one["messages"])
    found = [talk[:12_000]]
    licence = Path("/usr/share/common-licenses/GPL-3")
    if licence.exists():
        found.append(licence.read_text(encoding="utf-8")[3_000:15_000])
    return found


def main() -> None:
    """Measure and print."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--model", type=Path)
    flags.add_argument("--text", type=Path, nargs="*", default=[])
    flags.add_argument("--window", type=int, default=512)
    options = flags.parse_args()
    folder = options.model or smollm2()[0]
    model, tokenizer = load_model(folder, torch.bfloat16).eval(), Tokenizer.load(folder)
    window = min(options.window, model.config.seq_len)
    windows = [
        ids[at : at + window]
        for ids in (tokenizer.encode(text) for text in texts(options.text))
        for at in range(0, len(ids) - window, window)
    ]
    n_bytes = sum(len(tokenizer.decode(ids[1:]).encode()) for ids in windows)
    base = None
    for kind in ("bf16", "int8", "int4"):
        runner = NativeRunner(model, tokenizer.vocab_size, kind)
        cache = PagedCache(model.config, runner.dtype, size_bytes=2**26)
        bits = 0.0
        for ids in windows:
            lease = cache.open(ids, len(ids))
            assert lease is not None
            logits = runner.forward(cache, [Part(ids, 0, lease, len(ids))])
            bits += F.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum").item() / math.log(2)
            cache.close(lease)
        rate = bits / n_bytes
        base = base or rate
        print(f"{kind:5s} {rate:.5f} bits per byte on {n_bytes} bytes  {100 * (rate / base - 1):+.3f} %", flush=True)


if __name__ == "__main__":
    main()
