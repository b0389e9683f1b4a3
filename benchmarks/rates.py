"""Sweeps behind the dial: where the best rates lie, and whether they move with width, depth, tokens and batch.

``python benchmarks/rates.py --project demo`` runs what is missing of the series below, for at most ``--seconds``; ``--fit`` reads the rows,
fits the dial's rules and prints their regret against each size's own best.
"""

from proxy import Spec, Text, arguments, run_all

STEPS = 128
FIVE = (0.0025, 0.005, 0.01, 0.02, 0.04)


def series() -> dict[str, list[Spec]]:
    """All series, the cheapest first."""
    made: dict[str, list[Spec]] = {}
    for depth in (1, 2, 3):
        made[f"matrix-d{depth}"] = [Spec("matrix", depth, STEPS, train={"lr_matrix": rate}) for rate in FIVE]
    for depth in (1, 2, 3):
        made[f"embedding-d{depth}"] = [
            Spec("embedding", depth, STEPS, train={"lr_embedding": rate}) for rate in (0.0025, 0.005, 0.01, 0.02, 0.04)
        ]
    for depth in (1, 2):
        made[f"other-d{depth}"] = [
            Spec("other", depth, STEPS, train={"lr_other": rate}) for rate in (0.001, 0.004, 0.016)
        ]
    made["matrix-d4"] = [Spec("matrix", 4, STEPS, train={"lr_matrix": rate}) for rate in (0.005, 0.01, 0.02)]
    made["embedding-d4"] = [Spec("embedding", 4, STEPS, train={"lr_embedding": rate}) for rate in (0.005, 0.01, 0.02)]
    return made


def main() -> None:
    """Run what is missing."""
    args = arguments(__doc__, "benchmarks/rates.jsonl").parse_args()
    text = Text(args.project)
    wanted = series()
    run_all([spec for name in args.series or wanted for spec in wanted[name]], text, args.out, args.seconds)


if __name__ == "__main__":
    main()
