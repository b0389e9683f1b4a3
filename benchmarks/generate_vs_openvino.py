"""Prompt and generation speed of SmolLM2-135M against OpenVINO GenAI reading our F16 GGUF, in turns.

Run: python benchmarks/generate_vs_openvino.py --python PATH/bin/python   (an environment with openvino-genai)
"""

from generate_common import Side, compare, parser, smollm2


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    folder, file = smollm2()
    compare(
        options,
        folder,
        [Side("OpenVINO GenAI", "openvino", file, options.threads, "-", options.python)],
        "generate_vs_openvino",
    )


if __name__ == "__main__":
    main()
