"""What each choice of the default is worth: the default with one choice taken back, three seeds each, on one proxy.

``python benchmarks/ablations.py --project demo`` runs what is missing, for at most ``--seconds``; ``--table`` prints the table of docs/log.md.
A seed draws the weights and the order of the text, and is the same for all variants, so they are compared in pairs.
"""

import math
import statistics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptwright.model.transformer import Transformer
from gptwright.train import optim
from proxy import Spec, Text, arguments, known, run_all

DEPTH, STEPS, ROWS = 2, 128, 16
SEEDS = (0, 1, 2)
# The dial's rates at this size, and AdamW's own best (benchmarks/rates.py, series adamw-d2).
MUON = {"lr_matrix": 0.0119, "lr_embedding": 0.0282, "lr_other": 0.012}
ADAMW = {"optimizer": "adamw", "lr_other": 0.0014, "lr_embedding": 0.0282}
# Student's t for a 95 % interval by degrees of freedom.
_T = {1: 12.71, 2: 4.303}


class Plain(nn.Module):
    """A feed-forward part without a gate, four times as wide as the model: as many parameters as SwiGLU's of 8/3."""

    def __init__(self, width: int, square: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.square = square

    def forward(self, x_btd: Tensor) -> Tensor:
        up = self.up(x_btd)
        out: Tensor = self.down(F.relu(up).square() if self.square else F.gelu(up, approximate="tanh"))
        return out

    def train_forward(self, x_btd: Tensor, _: object) -> Tensor:
        return self(x_btd)


_parts = optim.parts


def change(spec: Spec, model: Transformer) -> None:
    """Alter a new model as the variant says."""
    optim.parts = _parts
    if spec.variant not in ("gelu", "relu2"):
        return
    optim.parts = lambda name, shape, config: (
        [(0, shape[0])] if name.endswith("feed_forward.up.weight") else _parts(name, shape, config)
    )
    generator = torch.Generator().manual_seed(spec.seed + 1)
    for block in model.blocks:
        block.feed_forward = Plain(model.config.d_model, spec.variant == "relu2")
        for part, std in ((block.feed_forward.up, 0.02), (block.feed_forward.down, 0.02 / math.sqrt(2 * spec.depth))):
            part.weight.data.normal_(0.0, std, generator=generator)


# name: (settings, shape, variant, what it costs to have the default's choice instead)
VARIANTS: dict[str, tuple[dict, dict, str, str]] = {
    "default": ({}, {}, "", ""),
    "AdamW for the matrices": (ADAMW, {}, "", "none: only training knows"),
    "cosine to a tenth": ({"decay": "cosine", "decay_share": 0.98, "final_lr_share": 0.1}, {}, "", "none"),
    "cosine to nothing": ({"decay": "cosine", "decay_share": 0.98}, {}, "", "none"),
    "no queries' and keys' norm": ({}, {"family": "llama"}, "", "Qwen3 on disk, else Llama: both open everywhere"),
    "untied head": ({}, {"tie_embeddings": False}, "", "none; more parameters"),
    "GELU": ({}, {}, "gelu", "none: SwiGLU is what Llama and Qwen have"),
    "ReLU squared": ({}, {}, "relu2", "no family on disk has it"),
    "a key head for each query head": ({}, {"n_kv_heads": 2}, "", "none; the cache is half as large"),
    "no warm-up": ({"warmup_share": 0.0}, {}, "", "none"),
    "no weight decay": ({"weight_decay": 0.0}, {}, "", "none"),
    "no clipping": ({"clip_norm": 1e9}, {}, "", "none"),
    "one rate for embedding and rest": ({"lr_embedding": 0.012}, {}, "", "none"),
}


def specs() -> list[Spec]:
    """All runs, a seed of every variant before the next seed."""
    return [
        Spec(name, DEPTH, STEPS, ROWS, seed, {**({} if "optimizer" in train else MUON), **train}, model, variant)
        for seed in SEEDS
        for name, (train, model, variant, _) in VARIANTS.items()
    ]


def table(rows: dict[str, dict]) -> str:
    """Mean over seeds, spread, and what the default gains over each variant, with a 95 % interval of the paired differences."""
    found: dict[str, dict[int, float]] = {}
    for spec in specs():
        if (row := rows.get(spec.key)) is not None and row["bpb"] is not None:
            found.setdefault(spec.series, {})[spec.seed] = row["bpb"]
    base = found.get("default", {})
    lines = [
        "| variant | seeds | bits/byte | spread | the default gains | cost of the default's choice |",
        "|---|---|---|---|---|---|",
    ]
    for name, scores in found.items():
        mean = statistics.mean(scores.values())
        spread = f"{statistics.stdev(scores.values()):.4f}" if len(scores) > 1 else ""
        pairs = [scores[seed] - base[seed] for seed in scores if seed in base]
        gain = ""
        if name != "default" and pairs:
            gain = f"{statistics.mean(pairs):+.4f}"
            if len(pairs) > 1:
                gain += f" ± {_T[len(pairs) - 1] * statistics.stdev(pairs) / math.sqrt(len(pairs)):.4f}"
        lines.append(f"| {name} | {len(scores)} | {mean:.4f} | {spread} | {gain} | {VARIANTS[name][3]} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = arguments(__doc__, "benchmarks/ablations.jsonl")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS), help="only these")
    parser.add_argument("--table", action="store_true", help="print what is known and run nothing")
    args = parser.parse_args()
    if not args.table:
        chosen = [
            spec for spec in specs() if spec.seed in args.seeds and (not args.series or spec.series in args.series)
        ]
        run_all(chosen, Text(args.project), args.out, args.seconds, change)
    print(table(known(args.out)))


if __name__ == "__main__":
    main()
