"""Our side of the serving benchmark, in a process of its own: the server as ``gptwright serve`` starts it, or its engine without HTTP.

serve_side.py http FOLDER THREADS WEIGHTS       prints its address; ends on SIGTERM
serve_side.py engine FOLDER THREADS WEIGHTS     prints "ready"; for each line {"prompts": [...], "new": N} on stdin, one line of JSON
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.serve.protocols import ModelInfo

MODEL = "model"


class OneModel:
    """The models of a project with one model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> Sequence[ModelInfo]:
        """The one."""
        return [ModelInfo(MODEL, 1_790_000_000)]

    def engine(self, id_or_alias: str) -> tuple[str, Any]:
        """The one, whatever it is called."""
        return MODEL, self._engine


def over_http(engine: Engine) -> None:
    """Serve with the defaults: guard, limits, usage in SQLite."""
    from gptwright.core.control import ControlStore
    from gptwright.serve.app import create_app
    from gptwright.serve.config import ServeConfig
    from gptwright.serve.run import serve

    config = ServeConfig(port=0)
    with tempfile.TemporaryDirectory(prefix="gptwright-serve-") as folder:
        control = ControlStore.open(Path(folder) / "control.sqlite")
        app = create_app(OneModel(engine), config=config, control=control)
        serve(app, config, control=control, on_start=lambda url: print(url, flush=True))
        control.close()


def bare(engine: Engine) -> None:
    """All prompts at once, as 32 clients would send them; the same numbers as a client measures."""
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        prompts = [engine.encode_prompt(text) for text in asked["prompts"]]
        bias = {int(token): value for token, value in asked["logit_bias"].items()}
        config = GenerationConfig(max_tokens=asked["new"], temperature=0, logit_bias=bias)
        stamps: list[list[float]] = [[] for _ in prompts]
        start = time.perf_counter()
        requests = [
            engine.submit(ids, config, on_piece=lambda _, mine=mine: mine.append(time.perf_counter()))
            for ids, mine in zip(prompts, stamps, strict=True)
        ]
        tokens = sum(request.result().completion_tokens for request in requests)
        seconds = time.perf_counter() - start
        times = [[at - start for at in mine] for mine in stamps]
        print(json.dumps({"seconds": seconds, "tokens": tokens, "times": times}), flush=True)


def main() -> None:
    """Args: http or engine, model directory, threads, weights."""
    what, folder, threads, weights = sys.argv[1:5]
    torch.set_num_threads(int(threads))
    with Engine.load(folder, device="cpu", weights=weights) as engine:
        (over_http if what == "http" else bare)(engine)


if __name__ == "__main__":
    main()
