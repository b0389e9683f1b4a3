"""What the server needs from others: models by name, engines that answer, a tokenizer. Shapes only, no code."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from gptwright.gateway.serving import ModelInfo
from gptwright.infer.config import GenerationConfig
from gptwright.infer.scoring import TokenScore

__all__ = ["EngineLike", "ModelInfo", "Models", "Piece", "RenderedChat", "Running", "TokenizerLike"]


class Piece(Protocol):
    """What one step of generation brought: text (maybe empty), a token, and at the end a reason."""

    @property
    def text(self) -> str: ...
    @property
    def token_id(self) -> int | None: ...
    @property
    def logprob(self) -> float | None: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def top(self) -> Sequence[tuple[int, float]]: ...


class Running(Protocol):
    """A request that an engine works on; cancel it from any thread."""

    def cancel(self) -> None: ...
    def result(self, timeout_s: float | None = None) -> Any:
        """Waits for the end; raises if the engine failed."""
        ...


class RenderedChat(Protocol):
    """A chat as token ids."""

    @property
    def ids(self) -> Sequence[int]: ...


class TokenizerLike(Protocol):
    """The part of a tokenizer that the server uses."""

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def token_bytes(self, token_id: int) -> bytes: ...
    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False) -> RenderedChat: ...


class EngineLike(Protocol):
    """A loaded model, such as ``gptwright.infer.engine.Engine``. All methods may be called from any thread."""

    @property
    def tokenizer(self) -> TokenizerLike: ...
    @property
    def seq_len(self) -> int: ...
    def encode_prompt(self, text: str) -> list[int]: ...
    def score(self, ids: Sequence[int], top: int = 0) -> list[TokenScore]:
        """Log-probabilities of a given text's tokens."""
        ...

    def embed(self, ids: Sequence[int]) -> list[float]:
        """A given text as a vector of length 1."""
        ...

    def fit_chat(
        self, messages: Sequence[Mapping[str, Any]], config: GenerationConfig | None = None
    ) -> tuple[list[int], int]: ...
    def submit(
        self,
        prompt: Sequence[int],
        config: GenerationConfig | None = None,
        *,
        timeout_s: float | None = None,
        on_piece: Callable[[Any], None] | None = None,
        client: str = "",
        background: bool = False,
    ) -> Running: ...


class Models(Protocol):
    """The models that this server answers with."""

    def list(self) -> Sequence[ModelInfo]:
        """All of them; aliases too, if they may be asked for."""
        ...

    def engine(self, id_or_alias: str) -> tuple[str, EngineLike]:
        """The full id and a loaded engine; may take a while the first time.

        Raises:
            UserError: there is no such model.
        """
        ...
