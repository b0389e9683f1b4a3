"""Prompt and generation speed of SmolLM2-135M against OpenVINO GenAI reading our F16 GGUF, in turns.

Run: python benchmarks/generate_vs_openvino.py --python PATH/bin/python   (an environment with openvino-genai)
     with --openvino in an environment that has gptwright too: ours is then the engine with OpenVINO GenAI inside, and the ratio what that costs
"""

from generate_common import Side, compare, parser, smollm2


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__)
    flags.add_argument(
        "--openvino", action="store_true", help="Ours: with engine = openvino instead of the built-in one."
    )
    options = flags.parse_args()
    folder, file = smollm2()
    ours = []
    if options.openvino:
        ours = [Side("gptwright on OpenVINO", "ours_openvino", folder, options.threads, "-", options.python)]
    compare(
        options,
        folder,
        [Side("OpenVINO GenAI", "openvino", file, options.threads, "-", options.python)],
        "generate_vs_openvino",
        ours,
    )


if __name__ == "__main__":
    main()
