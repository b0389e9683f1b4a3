"""The pages over a fake engine whose tokens are words, in a process of its own. Prints its address.

What is said is that of ``tests/serve/fakes.py``; beside it there is a second model of our own, an open one, one that cannot be loaded,
and one without probabilities.
"""

import argparse
import importlib.util
import json
import math
import re
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

FAKES = Path(__file__).parents[1] / "serve" / "fakes.py"
spec = importlib.util.spec_from_file_location("gw_fakes", FAKES)
assert spec is not None
assert spec.loader is not None
fakes: Any = importlib.util.module_from_spec(spec)
sys.modules["gw_fakes"] = fakes
spec.loader.exec_module(fakes)

from gptwright.core.control import ControlStore  # noqa: E402
from gptwright.core.errors import UserError  # noqa: E402
from gptwright.infer.request import Piece, Request  # noqa: E402
from gptwright.serve.app import create_app  # noqa: E402
from gptwright.serve.config import ServeConfig  # noqa: E402
from gptwright.serve.protocols import ModelInfo  # noqa: E402
from gptwright.serve.run import serve  # noqa: E402
from gptwright.studio.mount import mount  # noqa: E402

FIRST, SECOND, OPEN = "demo-finetune-0123456789", "demo-older-1111111111", "smollm2-import-2222222222"
SILENT, BROKEN = "demo-silent-3333333333", "demo-broken-9999999999"
_PIECE = re.compile(r"\s?\w+|\s|[^\w\s]")
TALE = "Once upon a time there was a small boat that wanted to see the sea. "


class Tokenizer(fakes.Tokenizer):  # type: ignore[misc]
    """Ids for words, given out as they come."""

    vocab_size = 1_000_000

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._pieces: list[str] = []
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        with self._lock:
            for piece in _PIECE.findall(text):
                if piece not in self._ids:
                    self._ids[piece] = fakes.CONTROLS + len(self._pieces)
                    self._pieces.append(piece)
            return [self._ids[piece] for piece in _PIECE.findall(text)]

    def token_bytes(self, token_id: int) -> bytes:
        return self._pieces[token_id - fakes.CONTROLS].encode() if token_id >= fakes.CONTROLS else b""

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")


class Engine(fakes.Engine):  # type: ignore[misc]
    """Answers by rule. ``name`` makes two of them different."""

    def __init__(self, delay_s: float, name: str = "", probabilities: bool = True) -> None:
        super().__init__(delay_s)
        self.tokenizer, self.name, self.probabilities = Tokenizer(), name, probabilities

    def submit(self, prompt: Sequence[int], config: Any = None, **more: Any) -> Request:
        if config is not None and config.top_logprobs and not self.probabilities:
            raise UserError("top_logprobs is not there with engine = openvino")
        asked: Request = super().submit(prompt, config, **more)
        return asked

    def _run(self, request: Request) -> None:
        whole = self.tokenizer.decode(request.prompt).rpartition("user\n")[2]
        asked, _, begun = whole.rpartition("assistant\n")
        asked = asked.strip()
        if asked in ("hang", "fail") and not begun:
            request.prompt = fakes.Tokenizer().encode(f"user\n{asked}assistant\n")
            self.tokenizer, real = fakes.Tokenizer(), self.tokenizer
            try:
                super()._run(request)
            finally:
                self.tokenizer = real
            return
        said = " they all went home." if begun else TALE * 3 if "story" in asked else self._text(asked, request.config)
        said += self.name
        delay_s = 0.01 if asked.startswith("slow") else self.delay_s
        ids = self.tokenizer.encode(said)
        others = self.tokenizer.encode(" perhaps never sea")
        for index, token in enumerate([*ids, fakes.IM_END]):
            if request.ended_from_outside is not None:
                request.give(Piece("", finish_reason="cancelled"))
                return
            p = (0.97, 0.72, 0.41, 0.18, 0.05)[(token * 7 + index) % 5]
            top = [
                (token, math.log(p)),
                (others[index % 3], math.log((1 - p) / 2)),
                (fakes.IM_END, math.log((1 - p) / 4)),
            ]
            reason = "stop" if token == fakes.IM_END else "length" if index + 1 == request.config.max_tokens else None
            text = self.tokenizer.token_bytes(token).decode()
            request.give(Piece(text, token, math.log(p), reason, tuple(top[: request.config.top_logprobs])))
            if reason is not None:
                return
            if delay_s:
                time.sleep(delay_s)


class Models:
    """Several models; ``production`` is an alias of the first."""

    def __init__(self, delay_s: float) -> None:
        self.engines = {
            FIRST: Engine(delay_s),
            SECOND: Engine(delay_s, " Or so."),
            OPEN: Engine(delay_s, " (open)"),
            SILENT: Engine(delay_s, probabilities=False),
        }

    def list(self) -> Sequence[ModelInfo]:
        return [
            ModelInfo(FIRST, 1_790_000_000),
            ModelInfo("production", 1_790_000_000, root=FIRST),
            ModelInfo(SECOND, 1_780_000_000),
            ModelInfo(SILENT, 1_770_000_000),
            ModelInfo(BROKEN, 1_760_000_000),
            ModelInfo(OPEN, 1_790_000_000, "import"),
        ]

    def engine(self, id_or_alias: str) -> tuple[str, Any]:
        name = FIRST if id_or_alias == "production" else id_or_alias
        if name not in self.engines:
            raise UserError(f"no model {id_or_alias}")
        return name, self.engines[name]


def main() -> None:
    """Serve on loopback; stop on SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--state", help="SQLite file of the control store")
    parser.add_argument("--corpus", type=Path, help="work/corpus")
    parser.add_argument("--config", default="{}", help="further settings of [serve], as JSON")
    arguments = parser.parse_args()
    control = ControlStore.open(arguments.state) if arguments.state else None
    config = ServeConfig.model_validate({"port": arguments.port, **json.loads(arguments.config)})
    pages = partial(mount, corpus=arguments.corpus)
    app = create_app(Models(arguments.delay), config=config, control=control, mount=pages)
    serve(app, config, control=control, on_start=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
