"""Sweeps behind the dial: where the best rates lie, and whether they move with width, depth, tokens and batch.

``python benchmarks/rates.py --project demo`` runs what is missing of the series below, for at most ``--seconds``; ``--fit`` reads the rows,
fits the dial's rules and prints their regret against each size's own best.
"""

import math

import numpy as np

from gptwright.model.presets import modern
from gptwright.train.config import TrainConfig
from gptwright.train.dial import dial
from gptwright.train.sweep import Trial, verdict
from proxy import SEQ_LEN, THEN, Spec, Text, arguments, known, run_all

STEPS = 128
FIVE = (0.0025, 0.005, 0.01, 0.02, 0.04)
THREE = (0.005, 0.01, 0.02)


RATES = {1: (0.018, 0.04, 0.004), 2: (0.0125, 0.02, 0.004)}  # best of the series before: matrices, embedding, rest

# The dial at 4,096 tokens a step (train/dial.py).
DIAL = {1: (0.018, 0.0398, 0.012), 2: (0.0119, 0.0282, 0.012), 3: (0.0093, 0.023, 0.012)}


def _times(factor: float, matrix: float, embedding: float, other: float) -> dict[str, float]:
    rates = {"lr_matrix": matrix, "lr_embedding": embedding, "lr_other": other}
    return {name: float(f"{rate * factor:.3g}") for name, rate in rates.items()}


def series() -> dict[str, list[Spec]]:
    """All series, the cheapest first: one setting is moved, the others stay at TrainConfig's defaults."""

    def sweep(
        name: str, depth: int, key: str, values: tuple[float, ...], steps: int = STEPS, rows: int = 16
    ) -> list[Spec]:
        return [Spec(name, depth, steps, rows, train={key: value}) for value in values]

    made: dict[str, list[Spec]] = {}
    for depth, values in ((1, FIVE), (2, FIVE), (3, THREE), (4, THREE)):
        made[f"matrix-d{depth}"] = sweep("matrix", depth, "lr_matrix", values)
        made[f"embedding-d{depth}"] = sweep("embedding", depth, "lr_embedding", values)
    for depth in (1, 2):
        made[f"other-d{depth}"] = sweep("other", depth, "lr_other", (0.001, 0.004, 0.016, 0.064))
        made[f"decay-d{depth}"] = sweep("decay", depth, "weight_decay", (0.0, 0.1, 1.0))
        # The same tokens in larger and smaller batches, each at three rates.
        made[f"batch-d{depth}"] = [
            spec for rows in (4, 64) for spec in sweep("batch", depth, "lr_matrix", THREE, STEPS * 16 // rows, rows)
        ]
        made[f"tokens-d{depth}"] = sweep("tokens", depth, "lr_matrix", THREE, 4 * STEPS)
        made[f"tokens-embedding-d{depth}"] = sweep("tokens", depth, "lr_embedding", THREE, 4 * STEPS)
        # Four times the tokens, in batches of 1,024 to 16,384 tokens; all three rates go with the root of the batch.
        made[f"horizon-d{depth}"] = [
            Spec("horizon", depth, STEPS * 64 // rows, rows, train=_times((rows / 16) ** 0.5, *RATES[depth]))
            for rows in (4, 8, 16, 32, 64)
        ]
    # Layers and width apart: one layer as wide as four have, four layers as narrow as one has.
    made["width-256"] = [Spec("width", 1, STEPS, width=256, train={"lr_matrix": rate}) for rate in THREE]
    made["layers-4"] = [Spec("layers", 4, STEPS, width=64, train={"lr_matrix": rate}) for rate in THREE]
    for depth, values in (
        (1, (0.001, 0.002, 0.004, 0.008)),
        (2, (0.0005, 0.001, 0.002, 0.004)),
        (3, (0.0005, 0.001, 0.002)),
    ):
        made[f"adamw-d{depth}"] = [
            Spec("adamw", depth, STEPS, train={"optimizer": "adamw", "lr_other": rate}) for rate in values
        ]
    # The rules themselves, and the rates of before the dial, at the sweeps' length and at four times it.
    for depth, rates in DIAL.items():
        for steps in (STEPS, 4 * STEPS):
            made[f"dial-d{depth}-{steps}"] = [
                Spec("dial", depth, steps, seed=seed, train=train)
                for seed in ((0, 1) if steps == STEPS and depth < 3 else (0,))
                for train in (_times(1.0, *rates), {})
            ]
    # Whether the gain of an untied head (ablations.py) lasts for four times the tokens.
    made["untied-d2"] = [Spec("untied", 2, 4 * STEPS, train=_times(1.0, *DIAL[2]), model={"tie_embeddings": False})]
    return made


def fit(rows: list[dict]) -> str:
    """Each size's best rate, the power of the width that fits them, the dial's value and what it loses against the best one measured."""
    lines = ["| setting | width | best, by a parabola | dial | loses |", "|---|---|---|---|---|"]
    usual = TrainConfig.model_validate({"max_steps": 1, **THEN}).model_dump()
    for key in ("lr_matrix", "lr_embedding", "lr_other", "adamw"):
        setting, found = "lr_other" if key == "adamw" else key, {}
        for depth in (1, 2, 3, 4):
            curve = {}
            for row in rows:
                moved = {name: value for name, value in row["train"].items() if value != usual[name]}
                optimizer = moved.pop("optimizer", "muon")
                if (
                    (row["depth"], row["steps"], row["rows"], row["width"], row["seed"]) == (depth, STEPS, 16, 0, 0)
                    and row["bpb"] is not None
                    and (optimizer == "adamw") == (key == "adamw")
                    and set(moved) <= {setting}
                ):
                    curve[row["train"].get(setting, usual[setting])] = row["bpb"]
            if len(curve) < 3:
                continue
            best = float(verdict([Trial(value, 0, loss) for value, loss in curve.items()]).best)
            shape = modern(depth=depth, vocab_size=4096, seq_len=SEQ_LEN)
            chosen = dial(shape, "adamw" if key == "adamw" else "muon", batch_tokens=16 * SEQ_LEN)
            value = getattr(chosen, setting)
            found[64 * depth] = best
            ends = "" if min(curve) < best < max(curve) else " or beyond"
            lines.append(
                f"| {key} | {64 * depth} | {best:.3g}{ends} | {value:g} | {_at(curve, value) - min(curve.values()):.4f} |"
            )
        if len(found) > 1:
            power, scale = np.polyfit(np.log(np.array(list(found)) / 192), np.log(list(found.values())), 1)
            lines.append(f"| {key} | all | {math.exp(scale):.3g} (width / 192)^{power:.2f} | | |")
    return "\n".join(lines)


def _at(curve: dict[float, float], value: float) -> float:
    """The loss at a value, on straight lines over its logarithm, which lie above the curve between its points."""
    known = sorted(curve)
    return float(np.interp(math.log(value), np.log(known), [curve[v] for v in known]))


def main() -> None:
    """Run what is missing, or fit what is there."""
    parser = arguments(__doc__, "benchmarks/rates.jsonl")
    parser.add_argument("--fit", action="store_true", help="print the fit and run nothing")
    args = parser.parse_args()
    if args.fit:
        print(fit(list(known(args.out).values())))
        return
    text = Text(args.project)
    wanted = series()
    run_all([spec for name in args.series or wanted for spec in wanted[name]], text, args.out, args.seconds)


if __name__ == "__main__":
    main()
