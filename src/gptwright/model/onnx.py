"""A model as an ONNX graph: token ids in, logits out, any batch and length. No cache: for checking, embedding in other programs, and
short texts; for serving take GGUF or the Hugging Face directory. Needs the extra ``onnx``.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptwright.core.errors import require
from gptwright.model.transformer import Transformer

FILE = "model.onnx"
# A protobuf message ends at 2 GB; from here on the weights lie in a file beside the graph.
_EXTERNAL_FROM_BYTES = 1_500_000_000


class _Logits(nn.Module):
    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model.logits(self.model(input_ids))


def export_onnx(model: Transformer, folder: str | Path) -> Path:
    """Write ``model.onnx`` (input ``input_ids`` int64 (batch, tokens), output ``logits`` fp32 (batch, tokens, vocab)).

    Args:
        model: LoRA, if any, must be merged.
        folder: is made.

    Returns:
        The file.

    Raises:
        UserError: the extra is not installed.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "onnx")
    target = Path(folder) / FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    seq_len = model.config.seq_len
    # Longer than a window, or the graph would be traced without it.
    example = torch.zeros(2, min(seq_len, (model.config.window or 7) + 1), dtype=torch.long)
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=seq_len)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _Logits(model.float()).eval(),
            (example,),
            dynamo=True,
            input_names=["input_ids"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": dims},
            verbose=False,
        )
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    program.save(str(target), external_data=size > _EXTERNAL_FROM_BYTES)
    return target


def onnx_logits(path: str | Path, ids: Sequence[int]) -> Tensor:
    """Logits (T, V) by onnxruntime.

    Raises:
        UserError: the extra is not installed.
    """
    runtime: Any = require("onnxruntime", "onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input_ids": torch.tensor([list(ids)]).numpy()})
    return torch.from_numpy(logits[0])
