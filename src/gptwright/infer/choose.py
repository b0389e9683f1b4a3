"""Which engine serves a model, and how its weights are held: measured when it is opened, and said."""

import math
import time
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from gptwright.core.errors import GptwrightError, UserError
from gptwright.core.progress import say
from gptwright.infer import native, openvino
from gptwright.infer.cache import PagedCache
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import CANNOT_MARK, MARK_FIX, Engine
from gptwright.infer.native import NativeRunner
from gptwright.infer.runner import Part
from gptwright.infer.watermark import Watermark
from gptwright.model.transformer import Transformer

EngineName = Literal["auto", "builtin", "openvino"]
MAX_LOSS = 0.005  # of the bits per byte
_SMALL_BYTES = 2**24  # a model that fits the processor's cache is bound by other things
_MARGIN = 1.1  # features are given up for no less
_STREAMS, _PROMPT, _NEW = 8, 96, 24  # of the trial


def open_engine(folder: str | Path, engine: EngineName = "auto", watermark: Watermark | None = None) -> Engine:
    """Open a model for serving.

    Args:
        folder: a model directory.
        engine: builtin, openvino, or auto: with OpenVINO GenAI installed both answer a few prompts, and the faster stays.
        watermark: marks the answers; only the built-in engine can.

    Returns:
        The engine. What was chosen, how fast it was and what it costs is said on stderr.

    Raises:
        UserError: the engine that was asked for cannot be had.
    """
    if engine == "openvino":
        if watermark is not None:
            raise UserError(CANNOT_MARK, where="[serve] engine = openvino", fix=MARK_FIX)
        chosen = Engine.load(folder, backend="openvino")
        say(f"engine: OpenVINO GenAI ({openvino.COSTS})")
        return chosen
    chosen = Engine.load(folder, weights="auto")
    if watermark is not None:
        chosen.watermark(watermark)
    if engine == "builtin" or not openvino.available():
        return chosen
    if watermark is not None:  # a mark that the law may ask for is not given up for speed, not in silence at least
        say(f"engine: built-in ({CANNOT_MARK}; with [guard] watermark = false both are measured)")
        return chosen
    try:
        other = Engine.load(folder, backend="openvino")
    except (UserError, RuntimeError) as error:
        say(f"engine: built-in; OpenVINO GenAI cannot run this model: {error}")
        return chosen
    ours, theirs = speed(chosen), speed(other)
    rates = f"{_STREAMS} streams, tokens/s: built-in {ours:.0f}, OpenVINO GenAI {theirs:.0f}"
    if theirs > ours * _MARGIN:
        chosen.close()
        say(f"engine: OpenVINO GenAI ({rates}). It costs: {openvino.COSTS}; engine = builtin keeps them")
        return other
    other.close()
    say(f"engine: built-in ({rates})")
    return chosen


def speed(engine: Engine) -> float:
    """Tokens a second over a few streams, prompts included; measured twice, the better counts."""
    config = GenerationConfig(max_tokens=_NEW, temperature=0, ignore_eos=True)
    vocab, length = engine.tokenizer.vocab_size, min(_PROMPT, engine.seq_len - _NEW)
    best = 0.0
    for turn in range(2):
        prompts = [[(31 * i + 17 * j + turn) % vocab for i in range(max(1, length))] for j in range(_STREAMS)]
        start = time.perf_counter()
        results = engine.generate(prompts, config)
        best = max(best, sum(len(r.ids) for r in results) / (time.perf_counter() - start))
    return best


@torch.inference_mode()
def choose_weights(model: Transformer, vocab_size: int, start_id: int, max_loss: float = MAX_LOSS) -> str:
    """int8 where it is faster and costs little, else the weights as they are.

    The cost is measured on text that the model itself draws: the divergence of the rounded model's predictions from its own, as a share of
    its own entropy, which is what the bits per byte of such text would grow by. No text has to be at hand, and it is in the model's language.

    Args:
        model: in evaluation mode.
        vocab_size: real ids.
        start_id: begins a document.
        max_loss: largest growth, as a share.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size < _SMALL_BYTES or not native.fits(model) or native.instructions() < 1:
        return "as_is"
    loss = rounding_loss(model, vocab_size, start_id, "int8")
    if loss <= max_loss:
        say(f"weights: int8, predictions differ by {100 * loss:.2f} % of the bits")
        return "int8"
    say(f"weights: as they are; int8 would cost {100 * loss:.2f} % of the bits, more than {100 * max_loss:.1f} %")
    return "as_is"


@torch.inference_mode()
def rounding_loss(model: Transformer, vocab_size: int, start_id: int, kind: str) -> float:
    """Growth of the bits per token under rounded weights, as a share; see ``choose_weights``."""
    plain = NativeRunner(model, vocab_size, "fp32" if model.embedding.weight.dtype == torch.float32 else "bf16")
    length, rows = min(64, model.config.seq_len), 16
    cache = PagedCache(model.config, plain.dtype, size_bytes=2**28, max_batch=2 * rows)
    generator = torch.Generator().manual_seed(0)
    texts = [[start_id] for _ in range(rows)]
    leases = [cache.open([start_id], length, root=i) for i in range(rows)]
    kept: list[torch.Tensor] = []
    for at in range(length - 1):
        parts = [Part(text[-1:], at, lease) for text, lease in zip(texts, leases, strict=True) if lease is not None]
        logits = plain.forward(cache, parts)
        kept.append(F.log_softmax(logits, -1))
        for text, token in zip(texts, torch.multinomial(kept[-1].exp(), 1, generator=generator)[:, 0], strict=True):
            text.append(int(token))
    rounded = NativeRunner(model, vocab_size, kind)
    parts = []
    for i, text in enumerate(texts):
        lease = cache.open(text[:1], length, root=rows + i)
        if lease is None:
            raise GptwrightError("no room to measure in")
        parts.append(Part(text[:-1], 0, lease, length - 1))
    found = F.log_softmax(rounded.forward(cache, parts), -1).view(rows, length - 1, -1)
    own = torch.stack(kept, dim=1)
    entropy = -(own.exp() * own).sum(-1).mean()
    divergence = (own.exp() * (own - found)).sum(-1).mean()
    loss = float(divergence / entropy.clamp(min=1e-9))
    return loss if math.isfinite(loss) else math.inf
