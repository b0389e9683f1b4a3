"""An adapter as if it were a model of its own: the same methods as the engine, whose steps and weights it shares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.infer.opening import WORDS, encode_prompt, fit_chat
from gptwright.infer.request import Piece, Request
from gptwright.infer.scoring import TokenScore
from gptwright.tokens.tokenizer import Tokenizer

_DEFAULT = GenerationConfig()


class Adapted:
    """A base model's engine under an adapter.

    Args:
        engine: of the base model; it holds the adapter.
        name: the adapter's, as ``engine.add_adapter`` got it.
        tokenizer: the adapter's own, with the base's ids and maybe another chat template; None: the base's.
        base: the base model's name.
    """

    def __init__(self, engine: Engine, name: str, tokenizer: Tokenizer | None = None, base: str = "") -> None:
        self.engine, self.name, self.base = engine, name, base
        self.tokenizer = tokenizer or engine.tokenizer
        self.tokenizer.remember_words(WORDS)
        # The scheduler ends answers at the base's stop ids; tuning may have taught other ones.
        self._stops = frozenset(self.tokenizer.stop_ids) - frozenset(engine.tokenizer.stop_ids)

    @property
    def seq_len(self) -> int:
        """See ``Engine``."""
        return self.engine.seq_len

    @property
    def closed(self) -> bool:
        """See ``Engine``."""
        return self.engine.closed

    def encode_prompt(self, text: str) -> list[int]:
        """See ``Engine``."""
        return encode_prompt(self.tokenizer, text)

    def fit_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        config: GenerationConfig | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[list[int], int]:
        """See ``Engine``."""
        return fit_chat(self.tokenizer, messages, (config or _DEFAULT).max_tokens, self.seq_len, tools)

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
        """See ``Engine``."""
        config = config or _DEFAULT
        if self._stops and not config.ignore_eos:
            config = config.model_copy(update={"stop_token_ids": (*config.stop_token_ids, *self._stops)})
        return self.engine.submit(
            prompt,
            config,
            timeout_s=timeout_s,
            on_piece=on_piece,
            adapter=self.name,
            client=client,
            background=background,
        )

    def score(self, ids: Sequence[int], top: int = 0) -> list[TokenScore]:
        """See ``Engine``."""
        return self.engine.score(ids, top, adapter=self.name)

    def embed(self, ids: Sequence[int]) -> list[float]:
        """See ``Engine``."""
        return self.engine.embed(ids, adapter=self.name)
