"""Is what was written still the model? Logits and greedy tokens of the original against those of other readers of the file."""

import contextlib
import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.hf import config_to_hf
from gptwright.model.transformer import Transformer

PROMPT = "The quick brown fox jumps over 13 lazy dogs.\nWhy? Because it can: naïve café, 2 + 2 = 4."
PROMPT_TOKENS, NEW_TOKENS = 48, 16
# Largest gap of a logit, as a share of the logits' standard deviation (at least 1): what rounding to this format may do. About twice
# the largest that was measured on tiny random models and SmolLM2-135M (f16 0.011, bf16 0.064 here and 0.10 in llama.cpp, q8_0 0.24 and
# 0.36). Loose by nature; that the weights themselves are the model's, rounded, is compared apart.
ROUNDING = {"f32": 1e-4, "f16": 0.025, "bf16": 0.2, "q8_0": 0.7}
# llama.cpp adds its own: it takes GPT-2's activation from a half-precision table, and quantizes activations beside q8_0 weights.
LLAMA_CPP = {"gpt2": 2e-2, "other": 1e-3}


@dataclass(frozen=True)
class Check:
    """One reader's answer.

    Args:
        reader: who read the file.
        logit_gap: largest difference of a logit to the original.
        tolerance: what it may be.
        greedy_equal: whether the greedy token is the same wherever the original's top two differ by more than twice the tolerance.
        same_tokens: whether texts become the same ids; None where that was not asked.
        note: why a reader could not be asked.
    """

    reader: str
    logit_gap: float | None = None
    tolerance: float | None = None
    greedy_equal: bool | None = None
    same_tokens: bool | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the file."""
        gap_fits = self.logit_gap is None or self.tolerance is None or self.logit_gap <= self.tolerance
        return gap_fits and self.greedy_equal is not False and self.same_tokens is not False

    def __str__(self) -> str:
        if self.logit_gap is None:
            return f"{self.reader}: {self.note}"
        parts = [
            f"largest logit gap {self.logit_gap:.1e}",
            f"greedy tokens {'equal' if self.greedy_equal else 'DIFFER'}",
        ]
        if self.same_tokens is not None:
            parts.append(f"token ids {'equal' if self.same_tokens else 'DIFFER'}")
        return f"{self.reader}: {', '.join(parts)}{'' if self.passed else ' - DIFFERS'}"

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"passed": self.passed}


@torch.no_grad()
def probe(model: Transformer, ids: Sequence[int], vocab_size: int) -> tuple[list[int], Tensor]:
    """The ids that readers are asked, and the original's answer.

    Args:
        model: the original.
        ids: a prompt; cut to 48 tokens, or to what the context holds. Sixteen greedy tokens follow it.
        vocab_size: real ids.

    Returns:
        Ids (T,), logits (T, vocab_size).
    """
    room = model.config.window or model.config.seq_len
    known = [i for i in ids if i < vocab_size][: max(1, min(PROMPT_TOKENS, room - NEW_TOKENS))] or [0]
    for _ in range(min(NEW_TOKENS, room - len(known))):
        known.append(int(model.logits(model(torch.tensor([known]))[:, -1])[0, :vocab_size].argmax()))
    return known, model.logits(model(torch.tensor([known])))[0, :, :vocab_size].float()


def judge(reader: str, expected: Tensor, found: Tensor, tolerance: float, same_tokens: bool | None = None) -> Check:
    """Compare a reader's logits (T, V) with the original's."""
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return Check(reader, float("inf"), tolerance, False, same_tokens)
    top = expected.topk(min(2, expected.shape[-1])).values
    clear = top[:, 0] - top[:, -1] > 2 * tolerance
    equal = expected.argmax(-1) == found.argmax(-1)
    return Check(reader, float((expected - found).abs().max()), tolerance, bool(equal[clear].all()), same_tokens)


def tolerance_of(dtype: str, expected: Tensor) -> float:
    """What rounding the weights to a dtype may do to logits."""
    return ROUNDING[dtype] * max(1.0, float(expected.std()))


def transformers_check(
    path: Path, config: ModelConfig, ids: Sequence[int], expected: Tensor, tolerance: float
) -> Check:
    """transformers' own reading of a Hugging Face directory or a GGUF file, in fp32."""
    if importlib.util.find_spec("transformers") is None:
        return Check("transformers", note='not installed (pip install "gptwright[hf]")')
    found = transformers_logits(path, config, ids)
    return judge("transformers", expected, found[:, : expected.shape[1]], tolerance)


@torch.no_grad()
def transformers_logits(path: Path, config: ModelConfig, ids: Sequence[int]) -> Tensor:
    """Logits (T, V) by transformers. Its reader of GGUF takes the tensors; the shape is told, since it overlooks GPT-2's context, the
    width of Qwen3's heads and scaled positions (seen in 5.23).
    """
    import transformers

    options: dict[str, Any] = {"dtype": torch.float32}
    folder = path
    if path.suffix == ".gguf":
        shape = config_to_hf(config, torch.float32, [], None)
        folder = path.parent
        options |= {"gguf_file": path.name, "config": transformers.AutoConfig.for_model(**shape)}
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            peer = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
        logits: Tensor = peer(torch.tensor([list(ids)])).logits[0].float()
        return logits
    finally:
        transformers.logging.set_verbosity(level)


def llamacpp_check(
    path: Path,
    config: ModelConfig,
    ids: Sequence[int],
    expected: Tensor,
    tolerance: float,
    texts: Sequence[str] = (),
    encode: Callable[[str], list[int]] | None = None,
) -> Check:
    """llama.cpp's reading of a GGUF file, tokens of texts too."""
    from gptwright.model import llamacpp

    if not llamacpp.installed():
        return Check("llama.cpp", note='not installed (pip install "gptwright[llamacpp]")')
    try:
        found, encoded = llamacpp.llamacpp_logits(path, ids, texts)
    except UserError as error:
        return Check("llama.cpp", note=str(error))
    own = LLAMA_CPP["gpt2" if config.family == "gpt2" else "other"] * max(1.0, float(expected.std()))
    same = None if encode is None else encoded == [encode(text) for text in texts]
    return judge("llama.cpp", expected, torch.from_numpy(found), max(own, tolerance), same)
