"""The engine: a model directory opened for generating. One thread owns the model; any thread may submit requests to it.

``generate``, ``stream``, ``chat`` and ``submit`` all go through the same scheduler, so whatever runs at the same time shares its steps.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch

from gptwright.core.errors import UserError
from gptwright.infer.adapters import Adapter, with_adapter
from gptwright.infer.cache import quarter_of_memory
from gptwright.infer.config import GenerationConfig
from gptwright.infer.opening import WORDS, encode_prompt, fast_dtype, fit_chat, open_model
from gptwright.infer.openvino import OpenVinoScheduler
from gptwright.infer.pooling import Pooling
from gptwright.infer.request import Piece, Request, Result
from gptwright.infer.scheduler import Scheduler
from gptwright.infer.scoring import TokenScore, score
from gptwright.infer.speculative import PromptLookup, open_draft
from gptwright.infer.structured import Forms
from gptwright.infer.watermark import Watermark
from gptwright.infer.worker import Worker
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer

__all__ = ["Engine", "fast_dtype"]

Messages = Sequence[Mapping[str, Any]]
_DEFAULT = GenerationConfig()
CANNOT_MARK = "OpenVINO GenAI cannot mark answers"
MARK_FIX = "Serve with engine = builtin, or set [guard] watermark = false"


class Engine:
    """A model and its tokenizer, ready to generate.

    Args:
        model: put into evaluation mode.
        tokenizer: of the same directory.
        max_batch: most answers that run at once.
        prefill_tokens: most prompt tokens taken in beside a decode step.
        kv_bytes: memory for keys and values; default a quarter of the machine's.
        weights: number format of the weights while they run; see ``infer.weights``.
        max_gap_s: aim for the pause between two tokens of a stream while prompts enter. Seconds.
        speculative: guess coming tokens from the text so far; answers stay the same, to the bit.
        backend: builtin, or openvino (see ``infer.openvino``; needs ``path``).

    Use it as a context manager, or ``close`` it.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 32,
        prefill_tokens: int = 256,
        kv_bytes: int | None = None,
        weights: str = "as_is",
        max_gap_s: float = 0.1,
        speculative: bool = True,
        backend: str = "builtin",
        path: Path | None = None,
    ) -> None:
        self.model, self.tokenizer, self.path = model.eval(), tokenizer, path
        tokenizer.remember_words(WORDS)
        kv_bytes = kv_bytes or quarter_of_memory()
        self._scheduler: Scheduler | OpenVinoScheduler
        if backend == "openvino":
            assert path is not None
            self._scheduler = OpenVinoScheduler(self.model, tokenizer, path, max_batch, prefill_tokens, kv_bytes)
        else:
            drafter = PromptLookup() if speculative else None
            self._scheduler = Scheduler(
                self.model, tokenizer, max_batch, prefill_tokens, kv_bytes, weights, max_gap_s, drafter
            )
        self._forms = Forms(tokenizer, min(tokenizer.vocab_size, model.config.vocab_size))
        self._worker = Worker(self._scheduler)
        self._reading = threading.Lock()
        self._readers: dict[str, Transformer] = {}
        self._pooling = Pooling.read(path, tokenizer)

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        dtype: torch.dtype | None = None,
        device: str = "auto",
        *,
        adapter: str | Path | None = None,
        max_batch: int = 32,
        prefill_tokens: int = 256,
        kv_bytes: int | None = None,
        weights: str = "as_is",
        max_gap_s: float = 0.1,
        speculative: bool = True,
        backend: str = "builtin",
    ) -> "Engine":
        """Open a model directory (or a LoRA adapter's: its base is opened and the adapter merged into it).

        Args:
            model_dir: a Hugging Face directory with a tokenizer, or a PEFT directory that names its base.
            dtype: of the weights in memory; None: bf16 where the hardware multiplies it, else fp32.
            device: "cpu", "cuda", or "auto": the GPU if there is one.
            adapter: a PEFT directory to merge into the model.
            max_batch: see the class.
            prefill_tokens: see the class.
            kv_bytes: see the class.
            weights: see the class; auto: int8 if the model's predictions hardly change by it (``infer.choose``).
            max_gap_s: see the class.
            speculative: see the class.
            backend: see the class.

        Raises:
            UserError: it is no such directory, or one that is not supported.
        """
        model, tokenizer, folder = open_model(Path(model_dir), dtype, device, adapter)
        if weights == "auto":
            from gptwright.infer.choose import choose_weights

            vocab = min(tokenizer.vocab_size, model.config.vocab_size)
            weights = "as_is" if backend != "builtin" else choose_weights(model.eval(), vocab, tokenizer.eos_id)
        return cls(
            model,
            tokenizer,
            max_batch=max_batch,
            prefill_tokens=prefill_tokens,
            kv_bytes=kv_bytes,
            weights=weights,
            max_gap_s=max_gap_s,
            speculative=speculative,
            backend=backend,
            path=folder if backend == "openvino" else Path(model_dir),
        )

    # Generating

    def submit(
        self,
        prompt: Sequence[int],
        config: GenerationConfig | None = None,
        *,
        timeout_s: float | None = None,
        on_piece: Callable[[Piece], None] | None = None,
        adapter: str | None = None,
        client: str = "",
        background: bool = False,
    ) -> Request:
        """Queue a prompt; returns at once. Thread-safe.

        Args:
            prompt: token ids. Empty: a new document begins.
            config: how to generate.
            timeout_s: seconds from now after which it ends with finish reason "deadline".
            on_piece: receives the pieces on the engine's thread, instead of iterating over the request. When the engine fails, it gets a
                last piece with finish reason "error" and ``result()`` raises.
            adapter: an adapter that ``add_adapter`` loaded; None: the model itself.
            client: whose request it is. While many wait, whoever was served least comes next.
            background: nobody waits for it: it steps back while there are others.

        Raises:
            UserError: there is no such adapter, the prompt is longer than the context, or holds ids that the model does not have.
            GptwrightError: the engine is closed.
        """
        request = self._request(prompt, config, timeout_s, on_piece)
        if adapter is not None and adapter not in self._scheduler.adapters:
            raise UserError(f"no adapter {adapter}", fix=f"Loaded are: {', '.join(self._scheduler.adapters) or 'none'}")
        request.adapter, request.client, request.background = adapter, client, background
        self._worker.enqueue([request])
        return request

    def add_adapter(self, name: str, folder: str | Path) -> None:
        """Load a LoRA adapter beside the model; requests name it. One of the same name is replaced without disturbing what runs.

        Args:
            name: for ``submit``.
            folder: a PEFT directory for this model.

        Raises:
            UserError: it is none, or does not fit the model.
        """
        adapter = Adapter.load(folder, self.model.config, next(_adapter_numbers))
        reader = with_adapter(self.model, folder)
        self._scheduler.add_adapter(name, adapter)
        self._readers[name] = reader

    def watermark(self, watermark: Watermark) -> None:
        """Mark all answers that are sampled from now on; see ``infer.watermark``.

        Raises:
            UserError: the backend cannot.
        """
        if not isinstance(self._scheduler, Scheduler):
            raise UserError(CANNOT_MARK, fix=MARK_FIX)
        self._scheduler.watermark = watermark

    def draft(self, folder: str | Path) -> None:
        """Let a small model (a directory) guess what comes, instead of the text so far. Answers stay the same; before the first request.

        Raises:
            UserError: it has another tokenizer.
        """
        drafter = open_draft(Path(folder), self.tokenizer, self.model)
        if isinstance(self._scheduler, Scheduler) and self._scheduler.runner.exact:
            self._scheduler.drafter = drafter

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters."""
        return tuple(self._scheduler.adapters)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        configs: GenerationConfig | Sequence[GenerationConfig] | None = None,
    ) -> list[Result]:
        """Generate for many prompts at once, batched; results in their order.

        Args:
            prompts: token ids of each.
            configs: one for all, or one each. With one for all that has a seed, prompt i gets seed + i.
        """
        if configs is None or isinstance(configs, GenerationConfig):
            shared = configs or _DEFAULT
            configs = [
                shared if shared.seed is None else shared.model_copy(update={"seed": shared.seed + i})
                for i in range(len(prompts))
            ]
        requests = [self._request(p, c, None, None) for p, c in zip(prompts, configs, strict=True)]
        self._worker.enqueue(requests)
        try:
            return [request.result() for request in requests]
        except BaseException:  # Ctrl-C: do not leave them running
            for request in requests:
                request.cancel()
            raise

    def stream(self, prompt: Sequence[int], config: GenerationConfig | None = None) -> Iterator[Piece]:
        """Pieces of one answer as they come. Closing the iterator cancels the request."""
        return _pieces(self.submit(prompt, config))

    @overload
    def chat(
        self, messages: Messages, config: GenerationConfig | None = None, *, stream: Literal[True]
    ) -> Iterator[Piece]: ...

    @overload
    def chat(
        self, messages: Messages, config: GenerationConfig | None = None, *, stream: Literal[False] = False
    ) -> Result: ...

    def chat(
        self, messages: Messages, config: GenerationConfig | None = None, *, stream: bool = False
    ) -> Iterator[Piece] | Result:
        """The assistant's answer to a conversation; when it is too long, its oldest turns are dropped (see ``fit_chat``)."""
        request = self.submit_chat(messages, config)
        return _pieces(request) if stream else request.result()

    def submit_chat(
        self,
        messages: Messages,
        config: GenerationConfig | None = None,
        *,
        timeout_s: float | None = None,
        on_piece: Callable[[Piece], None] | None = None,
    ) -> Request:
        """``submit`` for a conversation. ``Request.dropped_messages`` says how many old messages did not fit."""
        prompt, dropped = self.fit_chat(messages, config)
        request = self._request(prompt, config, timeout_s, on_piece)
        request.dropped_messages = dropped
        self._worker.enqueue([request])
        return request

    def complete(self, text: str, config: GenerationConfig | None = None) -> Result:
        """Continue a plain text."""
        return self.submit(self.encode_prompt(text), config).result()

    # Texts that are given

    def score(self, ids: Sequence[int], top: int = 0, *, adapter: str | None = None) -> list[TokenScore]:
        """Log-probabilities of a given text's tokens; see ``scoring.score``. On the caller's thread, one text at a time.

        Raises:
            UserError: it is longer than the context, or holds ids that the model does not have.
        """
        checked = self._request(ids, None, None, None).prompt
        with self._reading:
            model = self.model if adapter is None else self._readers[adapter]
            return score(model, checked, min(self.tokenizer.vocab_size, self.model.config.vocab_size), top)

    def embed(self, ids: Sequence[int], *, adapter: str | None = None) -> list[float]:
        """A given text as a vector of length 1; see ``infer.pooling``. On the caller's thread, one text at a time.

        Raises:
            UserError: as for ``score``.
        """
        checked = self._request(self._pooling.ended(ids), None, None, None).prompt
        with self._reading:
            return self._pooling.embed(self.model if adapter is None else self._readers[adapter], checked)

    # Prompts

    @property
    def seq_len(self) -> int:
        """Longest context. Tokens."""
        return self.model.config.seq_len

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a plain text to continue, begun as a document begins for this model."""
        return encode_prompt(self.tokenizer, text)

    def fit_chat(
        self, messages: Messages, config: GenerationConfig | None = None, tools: Messages = ()
    ) -> tuple[list[int], int]:
        """The prompt of a conversation, shortened if it must be.

        Room for the answer is kept: ``max_tokens``, at most a quarter of the context. What does not fit is dropped from the oldest turn on;
        leading system messages stay, and so does everything from the last user message on.

        Returns:
            Token ids, and how many messages were dropped.

        Raises:
            UserError: no messages, or even the last one does not fit.
        """
        return fit_chat(self.tokenizer, messages, (config or _DEFAULT).max_tokens, self.seq_len, tools)

    # The thread

    @property
    def load_now(self) -> tuple[int, int]:
        """Requests that run and requests that wait."""
        with self._worker.condition:
            s = self._scheduler
            return len(s.running) + len(s.entering), len(s.waiting) + len(self._worker.arrived)

    @property
    def cache_usage(self) -> float:
        """Share of the key-value cache that running requests hold; 1: all."""
        return self._scheduler.cache_usage

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or stopped after a fault."""
        return self._worker.closed

    def close(self) -> None:
        """End all requests with an error and stop the thread."""
        self._worker.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(
        self,
        prompt: Sequence[int],
        config: GenerationConfig | None,
        timeout_s: float | None,
        on_piece: Callable[[Piece], None] | None,
    ) -> Request:
        ids = [int(i) for i in prompt] or [self.tokenizer.eos_id]
        if len(ids) > self.seq_len:
            raise UserError(
                f"the prompt has {len(ids)} tokens, the model's context holds {self.seq_len}", fix="Shorten the prompt"
            )
        if min(ids) < 0 or max(ids) >= self.model.config.vocab_size:
            bad = next(i for i in ids if not 0 <= i < self.model.config.vocab_size)
            raise UserError(
                f"token id {bad} is not in the vocabulary", fix="Encode the prompt with this model's tokenizer"
            )
        if (reason := self._scheduler.refuses(config or _DEFAULT)) is not None:
            raise UserError(reason, fix="Leave it out, or serve with engine = builtin")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        request = Request(ids, config or _DEFAULT, deadline, on_piece)
        if request.config.form is not None:
            request.guide = self._forms.open(request.config.form)
        request.on_wake(self._worker.wake)
        return request


_adapter_numbers = itertools.count(1)


def _pieces(request: Request) -> Iterator[Piece]:
    try:
        yield from request
    finally:
        request.cancel()
