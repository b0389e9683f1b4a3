"""Which forward pass runs a model, and in which number format its weights are held."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gptwright.infer import native
from gptwright.infer.adapters import Adapter
from gptwright.infer.cache import PagedCache
from gptwright.infer.runner import Part, Runner
from gptwright.model.transformer import Transformer

FORMATS = ("as_is", "bf16", "int8", "int4")


class AnyRunner(Protocol):
    """A forward pass: the compiled one, or PyTorch's."""

    exact: bool
    kind: str
    dtype: torch.dtype

    def adapter(self, adapter: Adapter) -> Any: ...

    def forward(self, cache: PagedCache, parts: Sequence[Part], threads: int | None = None) -> Tensor: ...


def make_runner(model: Transformer, vocab_size: int, weights: str = "as_is") -> AnyRunner:
    """The fastest forward pass that can run a model.

    Args:
        model: in evaluation mode; read now, later changes do not count.
        vocab_size: real ids.
        weights: as_is: fp32 or bf16 as the model is; bf16, int8 or int4: rounded to that. Without the compiled kernels (no compiler, a
            GPU, odd shapes) the model runs as it is.
    """
    if not native.fits(model) or native.library() is None:
        return Runner(model, vocab_size)
    as_is = "fp32" if model.embedding.weight.dtype == torch.float32 else "bf16"
    return native.NativeRunner(model, vocab_size, as_is if weights == "as_is" else weights)
