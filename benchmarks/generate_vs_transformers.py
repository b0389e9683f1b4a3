"""Prompt and generation speed of SmolLM2-135M against ``transformers.generate`` in bf16 on the same machine, in turns.

Run: python benchmarks/generate_vs_transformers.py
"""

from generate_common import Side, compare, parser, smollm2


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    folder, _ = smollm2()
    compare(
        options,
        folder,
        [Side("transformers bf16", "transformers", folder, options.threads, "-", options.python)],
        "generate_vs_transformers",
    )


if __name__ == "__main__":
    main()
