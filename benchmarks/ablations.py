"""What each choice of the default is worth: the default with one choice taken back, three seeds and more each, on small proxies.

``python benchmarks/ablations.py --project demo`` runs what is missing, for at most ``--seconds``; ``--table`` prints the tables of docs/log.md.
A seed draws the weights and the order of the text, and is the same for all variants, so they are compared in pairs.
"""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptwright.model.transformer import Transformer
from gptwright.train import optim
from proxy import Spec, Text, arguments, known, run_all

# The dial's rates by depth, and AdamW's own best at two layers (benchmarks/rates.py, series adamw-d2).
MUON = {
    1: {"lr_matrix": 0.018, "lr_embedding": 0.0398, "lr_other": 0.012},
    2: {"lr_matrix": 0.0119, "lr_embedding": 0.0282, "lr_other": 0.012},
    3: {"lr_matrix": 0.0093, "lr_embedding": 0.023, "lr_other": 0.012},
}
ADAMW = {"optimizer": "adamw", "lr_other": 0.0014, "lr_embedding": 0.0282}
# What fine-tuning takes (project/settings.py).
GENTLE = {"lr_matrix": 0.006, "lr_embedding": 0.0012, "lr_other": 0.0012, "weight_decay": 0.0}
# Student's t for a 95 % interval by degrees of freedom.
_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}


class Plain(nn.Module):
    """A feed-forward part without a gate."""

    def __init__(self, width: int, inner: int, square: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
        self.square = square

    def forward(self, x_btd: Tensor) -> Tensor:
        up = self.up(x_btd)
        out: Tensor = self.down(F.relu(up).square() if self.square else F.gelu(up, approximate="tanh"))
        return out

    def train_forward(self, x_btd: Tensor, _: object) -> Tensor:
        return self(x_btd)


_parts = optim.parts


def change(spec: Spec, model: Transformer) -> None:
    """Alter a new model as the variant says: gelu or relu2, four times as wide as the model, or so wide that weights are as many as before."""
    optim.parts = _parts
    kind, _, equal = spec.variant.partition(":")
    if kind not in ("gelu", "relu2"):
        return
    optim.parts = lambda name, shape, config: (
        [(0, shape[0])] if name.endswith("feed_forward.up.weight") else _parts(name, shape, config)
    )
    generator = torch.Generator().manual_seed(spec.seed + 1)
    width, gated = model.config.d_model, model.config.d_ff
    for block in model.blocks:
        block.feed_forward = Plain(width, 3 * gated // 2 if equal else 4 * width, kind == "relu2")
        for part, std in ((block.feed_forward.up, 0.02), (block.feed_forward.down, 0.02 / math.sqrt(2 * spec.depth))):
            part.weight.data.normal_(0.0, std, generator=generator)


@dataclass(frozen=True)
class Try:
    """A variant: what differs from its group, and what it costs to have the default's choice instead. Seeds: how many."""

    train: dict[str, Any] = field(default_factory=dict)
    cost: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    seeds: int = 3
    depth: int = 0
    width: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Group:
    """Variants that are compared with the first one."""

    about: str
    tries: dict[str, Try]
    depth: int = 2
    steps: int = 128
    train: dict[str, Any] = field(default_factory=dict)
    unique: int = 0
    first: int = 0

    def specs(self, name: str) -> list[Spec]:
        """The runs of a variant, one a seed."""
        it = self.tries[name]
        depth = it.depth or self.depth
        rates = {} if "optimizer" in {**self.train, **it.train} else MUON[it.width // 64 or depth]
        train = {**rates, **self.train, **it.train}
        return [
            Spec(
                name,
                depth,
                it.steps or self.steps,
                16,
                seed,
                train,
                it.model,
                it.variant,
                it.width,
                self.unique,
                self.first,
            )
            for seed in range(it.seeds)
        ]


def _decays(about: str, steps: int, decays: tuple[float, ...], *, depth: int = 2, unique: int = 150_000) -> Group:
    """Weight decays of one text and number of steps, compared with none."""
    tries = {
        f"weight decay {decay:g}" if decay else "no weight decay": Try({"weight_decay": decay}) for decay in decays
    }
    return Group(about, tries, depth=depth, steps=steps, unique=unique)


_ONE_FAMILY = "none: SwiGLU is what Llama and Qwen have"
GROUPS = {
    "default": Group(
        "2 layers, 128 wide, 128 steps of 4,096 tokens",
        {
            "default": Try(seeds=6),
            "AdamW for the matrices": Try(ADAMW, "none: only training knows"),
            "cosine to a tenth": Try({"decay": "cosine", "decay_share": 0.98, "final_lr_share": 0.1}, "none"),
            "cosine to nothing": Try({"decay": "cosine", "decay_share": 0.98}, "none"),
            "no queries' and keys' norm": Try(
                {}, "Qwen3 on disk, else Llama: both open everywhere", {"family": "llama"}
            ),
            "untied head": Try({}, "none; fewer parameters", {"tie_embeddings": False}),
            "GELU, 7 % more weights": Try({}, _ONE_FAMILY, variant="gelu"),
            "ReLU squared, 7 % more weights": Try({}, _ONE_FAMILY, variant="relu2"),
            "GELU, equal weights": Try({}, _ONE_FAMILY, variant="gelu:equal"),
            "ReLU squared, equal weights": Try({}, _ONE_FAMILY, variant="relu2:equal"),
            "GPT-2's block, equal weights": Try(
                {},
                "Qwen3 on disk, else GPT-2: both open everywhere",
                {"family": "gpt2", "n_kv_heads": 2, "d_ff": 352, "norm_eps": 1e-5},
            ),
            "a key head for each query head": Try({}, "none; the cache is half as large", {"n_kv_heads": 2}, seeds=6),
            "no warm-up": Try({"warmup_share": 0.0}, "none", seeds=6),
            "no weight decay": Try({"weight_decay": 0.0}, "none", seeds=3),
            "no clipping": Try({"clip_norm": 1e9}, "none"),
        },
    ),
    "feed-forward at 192 wide": Group(
        "3 layers, 192 wide, where GELU at four widths has exactly SwiGLU's weights",
        {"SwiGLU": Try(), "GELU, equal weights": Try({}, _ONE_FAMILY, variant="gelu:equal")},
        depth=3,
    ),
    **{
        f"decay, {passes} passes": _decays(f"0.15 M tokens read {passes} times; 2 layers, 128 wide", steps, decays)
        for passes, steps, decays in (
            (2, 73, (0.0, 0.1, 0.3, 1.0, 2.0)),
            (4, 146, (0.0, 0.1, 0.3, 1.0, 2.0)),
            (8, 293, (0.0, 0.1, 0.3, 1.0, 2.0, 4.0)),
            (16, 586, (0.0, 0.1, 0.3, 1.0, 2.0, 4.0)),
        )
    },
    "decay, fed as the starter": _decays(
        "2.1 tokens a parameter read 3.2 times, as the starter does; 1 layer, 64 wide",
        508,
        (0.0, 0.1, 0.3, 1.0),
        depth=1,
        unique=650_000,
    ),
    "decay, 8 passes, better fed": _decays(
        "1 token a parameter read 8 times; 1 layer, 64 wide",
        586,
        (0.0, 0.3, 1.0, 2.0, 4.0),
        depth=1,
        unique=300_000,
    ),
    "decay, 16 passes, better fed": _decays(
        "1 token a parameter read 16 times; 1 layer, 64 wide",
        1172,
        (0.0, 0.3, 1.0),
        depth=1,
        unique=300_000,
    ),
    "decay, 8 passes, half as well fed": _decays(
        "half a token a parameter read 8 times; 2 layers, 128 wide", 850, (0.0, 0.3, 1.0, 2.0), unique=435_000
    ),
    "decay, 1 pass": _decays("4.1 M tokens read once; 1 layer, 64 wide", 1000, (0.0, 0.1), depth=1, unique=0),
    "warm-up, AdamW": Group(
        "AdamW for all, at its best rate",
        {"2 % warm-up": Try(), "no warm-up": Try({"warmup_share": 0.0})},
        train=ADAMW,
    ),
    "warm-up, doubled rates": Group(
        "all rates doubled",
        {"2 % warm-up": Try(), "no warm-up": Try({"warmup_share": 0.0})},
        train={"lr_matrix": 0.0238, "lr_embedding": 0.0564, "lr_other": 0.024},
    ),
    "warm-up, long": Group(
        "1 layer, 64 wide, 512 steps",
        {"2 % warm-up": Try(), "no warm-up": Try({"warmup_share": 0.0})},
        depth=1,
        steps=512,
    ),
    "warm-up, fine-tuning": Group(
        "40 steps at fine-tuning's rates after a run of 128",
        {"2 % warm-up": Try(), "no warm-up": Try({"warmup_share": 0.0})},
        train=GENTLE,
        steps=40,
        first=128,
    ),
    "head": Group(
        "an untied head against tied models of as many parameters, and of as much processor time",
        {
            "untied head": Try({}, model={"tie_embeddings": False}),
            "tied, as much processor time (136 steps)": Try(steps=136),
            "tied, as many parameters (5 layers)": Try(depth=5, width=128),
            "tied, as many parameters and as much processor time": Try(depth=5, width=128, steps=72),
        },
    ),
    "head, long": Group(
        "2 layers, 128 wide, 512 steps",
        {"tied head": Try(), "untied head": Try({}, "none; fewer parameters", {"tie_embeddings": False})},
        steps=512,
    ),
}


def specs(groups: list[str]) -> list[Spec]:
    """All runs of some groups, a seed of every variant before the next seed."""
    made = []
    for name in groups:
        runs = [spec for variant in GROUPS[name].tries for spec in GROUPS[name].specs(variant)]
        made += sorted(runs, key=lambda spec: spec.seed)
    return made


def table(group: Group, rows: dict[str, dict]) -> str:
    """Mean over seeds, spread, and what the first variant gains over each other one, with a 95 % interval of the paired differences."""
    found: dict[str, dict[int, dict]] = {}
    for name in group.tries:
        for spec in group.specs(name):
            if (row := rows.get(spec.key)) is not None and row["bpb"] is not None:
                found.setdefault(name, {})[spec.seed] = row
    first = next(iter(group.tries))
    base = found.get(first, {})
    lines = [
        group.about,
        "",
        f"| variant | seeds | parameters | processor time | bits/byte | spread | {first} gains | cost of {first} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        scores = {seed: row["bpb"] for seed, row in runs.items()}
        spread = f"{statistics.stdev(scores.values()):.4f}" if len(scores) > 1 else ""
        pairs = [scores[seed] - base[seed]["bpb"] for seed in scores if seed in base]
        gain = ""
        if name != first and pairs:
            gain = f"{statistics.mean(pairs):+.4f}"
            if len(pairs) > 1:
                gain += f" ± {_T[len(pairs) - 1] * statistics.stdev(pairs) / math.sqrt(len(pairs)):.4f}"
        size = f"{next(iter(runs.values()))['params'] / 1e6:.2f} M"
        seconds = f"{statistics.median(row['cpu_s'] for row in runs.values()):.1f} s"
        mean = statistics.mean(scores.values())
        lines.append(
            f"| {name} | {len(scores)} | {size} | {seconds} | {mean:.4f} | {spread} | {gain} | {group.tries[name].cost} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = arguments(__doc__, "benchmarks/ablations.jsonl")
    parser.add_argument("--groups", nargs="*", choices=list(GROUPS), default=list(GROUPS), help="only these")
    parser.add_argument("--seeds", type=int, nargs="*", help="only these")
    parser.add_argument("--table", action="store_true", help="print what is known and run nothing")
    args = parser.parse_args()
    if not args.table:
        chosen = [
            spec
            for spec in specs(args.groups)
            if (args.seeds is None or spec.seed in args.seeds) and (not args.series or spec.series in args.series)
        ]
        run_all(chosen, Text(args.project), args.out, args.seconds, change)
    rows = known(args.out)
    print("\n\n".join(table(GROUPS[name], rows) for name in args.groups))


if __name__ == "__main__":
    main()
