"""A fake engine with the real one's interface: the last message chooses what it answers, byte by byte.

Run as a script it is a server: ``python fakes.py [--studio] [--port N]``.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gptwright.core.errors import GptwrightError, UserError
from gptwright.infer.config import GenerationConfig
from gptwright.infer.request import Piece, Request
from gptwright.infer.scoring import TokenScore
from gptwright.infer.text import TextStream
from gptwright.serve.protocols import ModelInfo
from gptwright.tokens.stream import StreamDecoder

CONTROLS = 8
IM_START, IM_END = 1, 2

MARKDOWN = """Of course. Here is the idea in three steps:

1. **Read** the text and split it into tokens.
2. Predict the next token, again and again.
3. Stop when the turn is over.

```python
for piece in model.chat(messages, stream=True):
    print(piece, end="")
```

A model like this one learns from *your* texts, so it knows your words — and only those."""

HOSTILE = """<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">
<b onclick="window.hacked = 3">bold</b> [link](javascript:window.hacked=4) ![pixel](http://198.51.100.7/pixel.png)
<iframe srcdoc="<script>parent.hacked = 5</script>"></iframe> <svg onload="window.hacked = 6">

[fine](https://example.org/page)"""


class Tokenizer:
    """One id for each byte, after eight control ids."""

    vocab_size = CONTROLS + 256

    def encode(self, text: str) -> list[int]:
        return [CONTROLS + byte for byte in text.encode()]

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id - CONTROLS]) if token_id >= CONTROLS else b""

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False) -> Any:
        class Rendered:
            ids: list[int]

        rendered = Rendered()
        rendered.ids = []
        for message in messages:
            rendered.ids += [IM_START, *self.encode(f"{message['role']}\n{message['content']}"), IM_END]
        if add_generation_prompt:
            rendered.ids += [IM_START, *self.encode("assistant\n")]
        return rendered


class Engine:
    """Answers by rule; remembers its requests."""

    def __init__(self, delay_s: float = 0.0, seq_len: int = 4000) -> None:
        self.tokenizer, self.seq_len, self.delay_s = Tokenizer(), seq_len, delay_s
        self.logprob: Callable[[str], float] = lambda text: -0.5
        self.requests: list[Request] = []
        self.prompts: list[str] = []

    def encode_prompt(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def score(self, ids: Sequence[int], top: int = 0) -> list[TokenScore]:
        found = [TokenScore(i, None) for i in ids[:1]]
        return found + [TokenScore(i, -0.25, tuple((CONTROLS + 65 + k, -1.0 - k) for k in range(top))) for i in ids[1:]]

    def embed(self, ids: Sequence[int]) -> list[float]:
        vector = [float(len(ids)), *(float(ids.count(CONTROLS + byte)) for byte in b"abcdefg")]
        length = sum(value * value for value in vector) ** 0.5
        return [value / length for value in vector]

    def fit_chat(
        self, messages: Sequence[Mapping[str, Any]], config: GenerationConfig | None = None
    ) -> tuple[list[int], int]:
        for dropped in range(len(messages)):
            ids = self.tokenizer.render(messages[dropped:], add_generation_prompt=True).ids
            if len(ids) <= self.seq_len * 3 // 4:
                return ids, dropped
        raise UserError("the last message does not fit")

    def submit(
        self,
        prompt: Sequence[int],
        config: GenerationConfig | None = None,
        *,
        timeout_s: float | None = None,
        on_piece: Callable[[Piece], None] | None = None,
        client: str = "",
        background: bool = False,
    ) -> Request:
        config = config or GenerationConfig()
        request = Request(list(prompt), config, None, on_piece, background=background)
        self.requests.append(request)
        self.prompts.append(self.tokenizer.decode(prompt))
        threading.Thread(target=self._run, args=(request,), daemon=True).start()
        return request

    def _run(self, request: Request) -> None:
        asked = self.tokenizer.decode(request.prompt).removesuffix("assistant\n")
        asked = asked.rpartition("user\n")[2].strip()
        if asked == "hang":
            while request.ended_from_outside is None:
                time.sleep(0.005)
            request.give(Piece("", finish_reason="cancelled"))
            return
        said = self._text(asked, request.config)
        ids = self.tokenizer.encode(said)
        text = TextStream(StreamDecoder(self.tokenizer.token_bytes), request.config.stop)
        delay_s = 0.01 if asked.startswith("slow") else self.delay_s
        for index, token in enumerate([*ids, IM_END]):
            if request.ended_from_outside is not None:
                request.give(Piece("", finish_reason="cancelled"))
                return
            if asked == "fail" and index == 5:
                request.fail(GptwrightError("the engine broke"))
                return
            shown, stopped = text.push(token)
            last = token == IM_END or stopped
            reason = "stop" if last else "length" if index + 1 == request.config.max_tokens else None
            if reason is not None and not stopped:
                shown += text.finish()[0]
            top = tuple((CONTROLS + 65 + i, -1.0 - i) for i in range(request.config.top_logprobs))
            request.give(Piece(shown, token, self.logprob(said), reason, top))
            if reason is not None:
                return
            if delay_s:
                time.sleep(delay_s)

    @staticmethod
    def _text(asked: str, config: GenerationConfig) -> str:
        words = {
            "slow": "tick " * 1000,
            "mail": "Write to bob.smith@example.org, or call +1 650 253 0000.",
            "unicode": "Grüße 🙂 日本",
            "markdown": MARKDOWN,
            "hostile": HOSTILE,
            "settings": config.model_dump_json(exclude_defaults=True),
        }
        for name, text in words.items():
            if asked == name:
                return text
        if "What can you" in asked or "How do you" in asked:
            return MARKDOWN
        return f"You said: {asked}"


class Models:
    """Two models; ``production`` is an alias of the first."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.fake = engine or Engine()

    def list(self) -> Sequence[ModelInfo]:
        return [
            ModelInfo("demo-finetune-0123456789", 1_790_000_000),
            ModelInfo("production", 1_790_000_000, root="demo-finetune-0123456789"),
            ModelInfo("demo-broken-9999999999", 1_790_000_000),
        ]

    def engine(self, id_or_alias: str) -> tuple[str, Engine]:
        if id_or_alias in ("demo-finetune-0123456789", "production"):
            return "demo-finetune-0123456789", self.fake
        raise UserError(f"no model {id_or_alias}")


def main() -> None:
    """Serve the fake on loopback; print the URL; stop on SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studio", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--state", help="SQLite file of the control store; with it keys are required")
    parser.add_argument("--config", default="{}", help="further settings of [serve], as JSON")
    arguments = parser.parse_args()

    from gptwright.core.control import ControlStore
    from gptwright.serve.app import create_app
    from gptwright.serve.config import ServeConfig
    from gptwright.serve.run import serve

    mount = None
    if arguments.studio:
        from gptwright.studio.mount import mount as mount
    control = ControlStore.open(arguments.state) if arguments.state else None
    more = json.loads(arguments.config)
    config = ServeConfig.model_validate({"port": arguments.port, "require_key": control is not None, **more})
    app = create_app(Models(Engine(arguments.delay)), config=config, control=control, mount=mount)
    serve(app, config, control=control, on_start=lambda url: print(url, flush=True))
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
