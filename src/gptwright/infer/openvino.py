"""OpenVINO GenAI as the engine's other half (extra ``openvino``): our own GGUF export goes in, its continuous batching does the rest.

It stands where the built-in scheduler stands, so requests, streams, stop texts, deadlines and cancelling are the same. What it cannot do is
refused by name, never dropped.
"""

import hashlib
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import torch

from gptwright.core.errors import UserError
from gptwright.core.files import cache_dir
from gptwright.infer.answer import Answer, TokenizerLike
from gptwright.infer.config import GenerationConfig
from gptwright.infer.request import STOP, Request
from gptwright.model.config import ModelConfig
from gptwright.model.gguf import export_gguf
from gptwright.model.transformer import Transformer

COSTS = (
    "no adapters per request, no watermark, no alternatives with logprobs, no min_p, typical_p, logit_bias or structured output, "
    "and a seed repeats an answer only alone"
)
_STEP_TOKENS = (
    1024  # prompts go in at 0.99 of the full speed (at 288: 0.88), and who is answered beside them waits up to 0.3 s
)
_FAMILIES = ("llama", "qwen2", "modern")


def available() -> bool:
    """Whether the package can be loaded here."""
    try:
        _packages()
    except (ImportError, OSError):
        return False
    return True


def _packages() -> tuple[Any, Any]:
    """``openvino`` and ``openvino_genai``, kept from reporting home.

    ``import openvino`` sends an event to Google Analytics through openvino-telemetry unless the machine's user opted out (openvino 2026.4.1,
    ``tools/ovc/__init__.py``). Where that package cannot be imported it takes a stub, so in this process it cannot.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # type: ignore[import-not-found]
    import openvino_genai  # type: ignore[import-not-found]

    return openvino, openvino_genai


class OpenVinoScheduler:
    """Runs requests on OpenVINO GenAI's continuous batching; the same methods as ``infer.scheduler.Scheduler``.

    Args:
        model: exported once to a GGUF file in the cache.
        tokenizer: of the model.
        folder: the model's directory.
        max_batch: most answers that run at once.
        prefill_tokens: prompt and answer tokens of one step.
        kv_bytes: memory for keys and values.

    Raises:
        UserError: it is not installed, or does not know the model's family.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: TokenizerLike,
        folder: Path,
        max_batch: int = 32,
        prefill_tokens: int = 256,
        kv_bytes: int = 2**32,
    ) -> None:
        if model.config.family not in _FAMILIES:
            raise UserError(
                f"OpenVINO GenAI does not read {model.config.family} from GGUF", fix="Serve it with engine = builtin"
            )
        try:
            openvino, openvino_genai = _packages()
        except ImportError as error:
            raise UserError("OpenVINO GenAI is not installed", fix="pip install 'gptwright[openvino]'") from error
        self._genai: Any = openvino_genai
        self._tensor: Any = openvino.Tensor
        self.tokenizer, self.max_batch = tokenizer, max_batch
        self.config: ModelConfig = model.config
        self.seq_len = model.config.seq_len
        self.adapters: dict[str, Any] = {}
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []
        self.entering: list[Answer] = []
        self.cache_usage = 0.0  # share that requests hold
        self._handles: dict[Answer, Any] = {}
        settings = openvino_genai.SchedulerConfig()
        settings.max_num_seqs = max_batch
        settings.max_num_batched_tokens = max(prefill_tokens, _STEP_TOKENS) + max_batch
        settings.cache_size = max(1, kv_bytes // 2**30)
        settings.dynamic_split_fuse = True
        settings.enable_prefix_caching = True
        with tempfile.TemporaryDirectory(prefix="gptwright-") as temporary:
            file = _gguf(model, folder, Path(temporary))
            self._pipe = openvino_genai.ContinuousBatchingPipeline(str(file), settings, "CPU")

    @staticmethod
    def refuses(config: GenerationConfig) -> str | None:
        """What of a request it cannot do, or None."""
        for name in ("top_logprobs", "min_p", "typical_p", "logit_bias", "form"):
            if getattr(config, name) != type(config).model_fields[name].get_default(call_default_factory=True):
                return f"{name} is not there with engine = openvino"
        return None

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(Answer(request, self.tokenizer))

    def add_adapter(self, name: str, adapter: object) -> None:
        """Refused.

        Raises:
            UserError: always.
        """
        raise UserError("adapters per request are not there with engine = openvino", fix="Serve with engine = builtin")

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self.waiting or self.running)

    def step(self) -> None:
        """One step of the pipeline; tokens are handed on."""
        for answer in [a for a in (*self.waiting, *self.running) if a.request.ended_from_outside]:
            answer.end(answer.request.ended_from_outside or STOP)
            if answer in self._handles:
                self._leave(answer)
            else:
                self.waiting.remove(answer)
        while self.waiting and len(self.running) < self.max_batch:
            self._enter(self.waiting[0])
            self.running.append(self.waiting.popleft())
        if not self.running:
            return
        self._pipe.step()
        self.cache_usage = self._pipe.get_metrics().cache_usage / 100
        for answer in list(self.running):
            handle = self._handles[answer]
            while handle.can_read():
                for output in handle.read().values():
                    logprobs = output.generated_log_probs or [0.0] * len(output.generated_ids)
                    for token, logprob in zip(output.generated_ids, logprobs, strict=True):
                        answer.stored += answer.pending >= 0
                        if answer.accept(int(token), float(logprob), (), self.seq_len):
                            self._leave(answer)
                            break
                if answer not in self._handles:
                    break

    def fail_all(self, error: BaseException) -> None:
        """End every request with an error."""
        for answer in (*self.running, *self.waiting):
            answer.request.fail(error)
        for answer in list(self._handles):
            self._leave(answer)
        self.waiting.clear()

    def _enter(self, answer: Answer) -> None:
        import numpy as np

        config, prompt = answer.request.config, answer.prompt
        theirs = self._genai.GenerationConfig()
        # The end of an answer is decided here, with the same stop ids and texts as ever.
        theirs.ignore_eos = True
        theirs.max_new_tokens = max(1, min(config.max_tokens, self.seq_len - len(prompt) + 1))
        theirs.logprobs = int(config.logprobs)  # costs 8 to 10 % of the speed
        theirs.do_sample = config.temperature >= 1e-4
        if theirs.do_sample:
            theirs.temperature, theirs.top_p = config.temperature, config.top_p
            if config.top_k:
                theirs.top_k = config.top_k
            theirs.rng_seed = answer.request.seed % 2**31
        theirs.repetition_penalty = config.repetition_penalty
        theirs.frequency_penalty, theirs.presence_penalty = config.frequency_penalty, config.presence_penalty
        ids = self._tensor(np.array([prompt], dtype=np.int64))
        self._handles[answer] = self._pipe.add_request(answer.request.number, ids, theirs)
        answer.stored = len(prompt)

    def _leave(self, answer: Answer) -> None:
        self._handles.pop(answer).cancel()
        self.running.remove(answer)


def _gguf(model: Transformer, folder: Path, temporary: Path) -> Path:
    """The model as F16 GGUF, kept in the cache under the hash of its weights and tokenizer."""
    digest = hashlib.blake2b(digest_size=12)
    for tensor in model.state_dict().values():  # with an adapter merged it is not what the directory holds
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    digest.update((folder / "tokenizer.json").read_bytes())
    name = f"openvino-{digest.hexdigest()}.gguf"
    kept = cache_dir()
    file = (kept or temporary) / name
    if not file.exists():
        export_gguf(model, file, folder, "f16")
    return file
