"""Shared by the training benchmarks: the shape, the chit-chat text as tokens, and how a result is printed."""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gptwright.model.config import ModelConfig
from gptwright.model.cost import flops_per_token
from gptwright.model.hf import config_to_hf

ROWS, SEQ_LEN, VOCAB = 16, 512, 8192
HELDOUT_SHARE = 100  # one conversation in so many


@dataclass(frozen=True)
class Rows:
    """A batch as the training loop wants it."""

    tokens: np.ndarray
    targets: np.ndarray
    docs: list[str]


class ChitChat:
    """The chit-chat conversations (package chitchat-dataset, MIT) as one stream of token ids, and a held-out part by conversation.

    Rows are drawn at random places with the step as seed: the same batches for us and for every peer.
    """

    key = "chitchat"

    def __init__(self, vocab: int = VOCAB, rows: int = ROWS, seq_len: int = SEQ_LEN) -> None:
        import chitchat_dataset

        from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer

        self.rows, self.seq_len = rows, seq_len
        raw = json.loads((Path(chitchat_dataset.__file__).parent / "dataset.json").read_text(encoding="utf-8"))
        texts = ["\n".join(" ".join(m["text"] for m in turn) for turn in talk["messages"]) for talk in raw.values()]
        held = [
            int(hashlib.blake2b(text.encode(), digest_size=4).hexdigest(), 16) % HELDOUT_SHARE == 0 for text in texts
        ]
        train_texts = [text for text, out in zip(texts, held, strict=True) if not out]
        self.heldout_texts = [text for text, out in zip(texts, held, strict=True) if out]
        folder = Path(tempfile.gettempdir()) / f"gptwright-benchmark-chitchat-{vocab}"
        if not (folder / "tokenizer.json").exists():
            train_tokenizer(train_texts, vocab, folder)
        self.tokenizer = Tokenizer.load(folder)
        self.ids, self.heldout_ids = self._stream(train_texts), self._stream(self.heldout_texts)

    def _stream(self, texts: list[str]) -> np.ndarray:
        end = self.tokenizer.eos_id
        return np.concatenate([np.asarray([*ids, end], dtype=np.int64) for ids in self.tokenizer.encode_batch(texts)])

    def batch(self, step: int) -> Rows:
        starts = np.random.default_rng(step).integers(0, len(self.ids) - self.seq_len - 1, self.rows)
        both = np.stack([self.ids[s : s + self.seq_len + 1] for s in starts])
        return Rows(both[:, :-1], both[:, 1:], [f"row {s}" for s in starts])

    def heldout(self) -> list[Rows]:
        """All held-out tokens in whole windows, four to a batch."""
        windows = (len(self.heldout_ids) - 1) // self.seq_len
        tokens = self.heldout_ids[: windows * self.seq_len].reshape(windows, self.seq_len)
        targets = self.heldout_ids[1 : windows * self.seq_len + 1].reshape(windows, self.seq_len)
        return [Rows(tokens[i : i + 4], targets[i : i + 4], []) for i in range(0, windows, 4)]


def shape(width: int = 384, layers: int | None = None) -> ModelConfig:
    """The starter's shape: heads of 64, SwiGLU of 8/3, tied head; about 14 M parameters at 384."""
    d_ff = (width * 8 // 3 + 63) // 64 * 64
    heads = width // 64
    return ModelConfig(
        vocab_size=VOCAB,
        n_layers=layers or 6,
        d_model=width,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=64,
        d_ff=d_ff,
        seq_len=SEQ_LEN,
    )


def as_qwen3(config: ModelConfig) -> dict[str, Any]:
    """A shape as transformers' Qwen3Config, which is the same architecture."""
    return {**config_to_hf(config, torch.float32, [0], None), "use_cache": False}


def as_litgpt(config: ModelConfig) -> dict[str, Any]:
    """A shape as litgpt's Config, with the switches that make it the same architecture."""
    names = {
        "block_size": "seq_len",
        "vocab_size": "vocab_size",
        "padded_vocab_size": "vocab_size",
        "n_layer": "n_layers",
        "n_embd": "d_model",
        "n_head": "n_heads",
        "n_query_groups": "n_kv_heads",
        "head_size": "d_head",
        "intermediate_size": "d_ff",
        "rope_base": "rope_theta",
        "norm_eps": "norm_eps",
    }
    switches = {"rotary_percentage": 1.0, "parallel_residual": False, "bias": False, "norm_qk": config.qk_norm}
    kinds = {"norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP"}
    return {
        "name": "benchmark",
        **{theirs: getattr(config, ours) for theirs, ours in names.items()},
        **switches,
        **kinds,
    }


def machine() -> str:
    """Processor, cores and torch, in one line."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    probes = ("amx_tile", "avx512_bf16", "avx512", "avx2")
    isa = next((p for p in probes if getattr(torch.cpu, f"_is_{p}_supported", lambda: False)()), "")
    return f"{name} {isa}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def report(
    as_json: bool,
    name: str,
    ours: float,
    peer: str,
    theirs: float,
    unit: str,
    *,
    higher_is_better: bool = True,
    **more: Any,
) -> None:
    """Print the result: ``ratio`` is above 1 when ours is better."""
    ratio = ours / theirs if higher_is_better else theirs / ours
    row = {
        "name": name,
        "ours": ours,
        "peer": peer,
        "theirs": theirs,
        "unit": unit,
        "ratio": ratio,
        "machine": machine(),
        **more,
    }
    if as_json:
        print(json.dumps(row))
        return
    width = max(len(key) for key in row)
    for key, value in row.items():
        print(f"{key:<{width}}  {value:,.4g}" if isinstance(value, float) else f"{key:<{width}}  {value}")


def speed_arguments(description: str | None) -> argparse.ArgumentParser:
    """Arguments of the scripts that compare tokens/s."""
    parser = arguments(description)
    parser.add_argument("--side", choices=["ours", "theirs"], help="run one side only, at the first width")
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 384, 768, 1024], help="of the model")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon", help="ours; every peer has AdamW")
    return parser


def rounds(script: str, sides: tuple[str, str], options: list[str], count: int) -> dict[str, dict[str, Any]]:
    """Run both sides in turn, each in a process of its own, and keep the better values of each: what else the machine does hits both."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(count):
        for side in sides:
            command = [sys.executable, script, "--side", side, *options]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{side}: {found}", file=sys.stderr, flush=True)
            cpu = max(found["tokens_per_cpu_s"], best.get(side, found)["tokens_per_cpu_s"])
            if side not in best or found["tokens_per_s"] > best[side]["tokens_per_s"]:
                best[side] = found
            best[side]["tokens_per_cpu_s"] = cpu
    return best


Side = Callable[[ModelConfig], dict[str, Any]]


def compare_widths(args: argparse.Namespace, peer: str, ours: Side, theirs: Side, options: Sequence[str] = ()) -> None:
    """Tokens/s of both sides at every width, by wall and by processor time; or one side's numbers, for a child process."""
    if args.side is not None:
        config = shape(args.widths[0], args.layers)
        print(json.dumps((ours if args.side == "ours" else theirs)(config)))
        return
    rows = []
    for width in args.widths:
        given = ["--widths", str(width), "--layers", str(args.layers), "--steps", str(args.steps)]
        given += ["--optimizer", args.optimizer, *options]
        best = rounds(sys.argv[0], ("ours", "theirs"), given, args.rounds)
        us, them = best["ours"], best["theirs"]
        row = {"width": width, "ours": us["tokens_per_s"], "theirs": them["tokens_per_s"]}
        row["ratio"] = us["tokens_per_s"] / them["tokens_per_s"]
        row["ratio_by_cpu_time"] = us["tokens_per_cpu_s"] / them["tokens_per_cpu_s"]
        row |= {name: us[name] for name in ("share_of_matmul_peak", "matmul_peak_gflops", "warm_up_s")}
        row["peers_share"] = row["share_of_matmul_peak"] / row["ratio"]  # of the same peak, for the same work
        rows.append(row)
    if args.json:
        print(json.dumps({"peer": peer, "layers": args.layers, "machine": machine(), "rows": rows}))
        return
    print(f"{ROWS} x {SEQ_LEN} tokens a step, {args.layers} layers; {machine()}\npeer: {peer}")
    print("width   gptwright       peer   ratio   by CPU time   share of matmul peak   peer's   peak GFLOP/s")
    for r in rows:
        print(
            f"{r['width']:5} {r['ours']:11,.0f} {r['theirs']:10,.0f} {r['ratio']:7.2f} {r['ratio_by_cpu_time']:13.2f} "
            f"{r['share_of_matmul_peak']:22.2f} {r['peers_share']:8.2f} {r['matmul_peak_gflops']:14,.0f}"
        )


def speeds(wall_s: Sequence[float], cpu_s: Sequence[float]) -> dict[str, float]:
    """A peer's numbers from the seconds of its timed steps."""
    return {"tokens_per_s": ROWS * SEQ_LEN / statistics.median(wall_s), "tokens_per_cpu_s": tokens_per_cpu_s(cpu_s)}


def tokens_per_cpu_s(cpu_s: Any) -> float:
    """Speed by the processor time that a step took, which other load on the machine hardly changes."""
    return ROWS * SEQ_LEN / statistics.median(cpu_s)


def train_ours(
    data: Any, config: ModelConfig, steps: int, optimizer: Literal["muon", "adamw"] = "muon"
) -> dict[str, Any]:
    """Our loop as users run it; the median of its steps, the first two left out."""
    from gptwright.train.config import TrainConfig
    from gptwright.train.loop import train
    from gptwright.train.metrics import read_metrics

    with tempfile.TemporaryDirectory() as folder:
        begin, cpu = time.perf_counter(), []
        settings = TrainConfig(max_steps=steps + 2, optimizer=optimizer)
        result = train(
            config, data, settings, run_dir=Path(folder), callbacks=[lambda _: cpu.append(time.process_time())]
        )
        seconds = [row["seconds"] for row in read_metrics(Path(folder, "metrics.jsonl"))]
        resolved = json.loads(Path(folder, "config.json").read_text())
    tokens_per_s = ROWS * SEQ_LEN / statistics.median(seconds[2:])
    return {
        "tokens_per_s": tokens_per_s,
        "tokens_per_cpu_s": tokens_per_cpu_s(np.diff(cpu)[1:]),
        "share_of_matmul_peak": tokens_per_s * flops_per_token(config, SEQ_LEN) / resolved["matmul_peak"],
        "matmul_peak_gflops": resolved["matmul_peak"] / 1e9,
        "warm_up_s": time.perf_counter() - begin - sum(seconds[1:]),
        "loss": result.final_loss,
    }


class RandomRows:
    """Uniform token ids: speed does not depend on the text."""

    key = "random"

    def batch(self, step: int) -> Rows:
        ids = np.random.default_rng(step).integers(0, VOCAB, (ROWS, SEQ_LEN + 1))
        return Rows(ids[:, :-1], ids[:, 1:], [])
