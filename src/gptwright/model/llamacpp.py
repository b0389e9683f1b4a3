"""Logits and token ids of a GGUF file as llama.cpp computes them, in a process of its own: it is C++ and may crash.

Run as ``python -m gptwright.model.llamacpp FILE OUT.npz`` with a JSON request on standard input.
"""

import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptwright.core.errors import UserError

_TIMEOUT_S = 1800
_F32 = 0  # ggml_type


def installed() -> bool:
    """Whether llama-cpp-python is there (extra ``llamacpp``)."""
    return importlib.util.find_spec("llama_cpp") is not None


def llamacpp_logits(
    path: str | Path, ids: Sequence[int], texts: Sequence[str] = ()
) -> tuple[npt.NDArray[np.float32], list[list[int]]]:
    """What llama.cpp makes of a GGUF file: fp32 keys and values, no flash attention (its defaults are approximate).

    Args:
        path: the file.
        ids: token ids of one sequence.
        texts: to be tokenized by the file's own vocabulary; control tokens in them are text.

    Returns:
        Logits (T, V), and the ids of each text.

    Raises:
        UserError: llama.cpp refuses the file or crashes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.npz"
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(path), str(out)],
            input=json.dumps({"ids": list(ids), "texts": list(texts)}),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            crash = f"llama.cpp was stopped by signal {-done.returncode}" if done.returncode < 0 else last
            raise UserError(
                f"llama.cpp cannot run it ({crash})",
                where=str(path),
                fix="A crash at the first token is a known fault of builds by gcc before 12.4 on processors with AMX"
                if done.returncode < 0
                else "Try a newer llama-cpp-python",
            )
        with np.load(out) as data:
            return data["logits"], [data[f"text{i}"].tolist() for i in range(len(texts))]


def _main(path: str, out: str) -> None:
    Llama: Any = importlib.import_module("llama_cpp").Llama

    request = json.load(sys.stdin)
    ids: list[int] = request["ids"]
    arrays: dict[str, Any] = {}
    model = Llama(
        model_path=path,
        n_ctx=max(len(ids), 8),
        n_batch=max(len(ids), 8),
        logits_all=True,
        flash_attn=False,
        type_k=_F32,
        type_v=_F32,
        verbose=False,
    )
    model.eval(ids)
    arrays["logits"] = np.array(model.scores[: len(ids)], dtype=np.float32)
    for number, text in enumerate(request["texts"]):
        arrays[f"text{number}"] = np.array(model.tokenize(text.encode(), add_bos=False, special=False), dtype=np.int64)
    with open(out, "wb") as file:
        np.savez(file, **arrays)


if __name__ == "__main__":
    _main(*sys.argv[1:3])
