"""How one vector is made of a text's hidden states: by their mean, or as an embedding model's directory says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer

POOLING = "1_Pooling/config.json"
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}


@dataclass(frozen=True)
class Pooling:
    """What becomes of the hidden states after the last norm.

    Args:
        kind: mean of all, or the last token's.
        end: appended to a text, as the model was trained with; None: nothing.

    Source: mean pooling as in Sentence-BERT (arXiv 1908.10084); the last token's as in decoder embedding models such as Qwen3-Embedding
    (2506.05176); directories in sentence-transformers' layout.
    """

    kind: Literal["mean", "last"] = "mean"
    end: int | None = None

    @classmethod
    def read(cls, folder: Path | None, tokenizer: Tokenizer) -> "Pooling":
        """What a model directory says; the mean where it says nothing.

        Raises:
            UserError: it asks for a pooling that is not supported.
        """
        file = None if folder is None else folder / POOLING
        if file is None or not file.is_file():
            return cls()
        asked = [name for name, on in read_json(file).items() if name.startswith("pooling_mode_") and on is True]
        if len(asked) != 1 or asked[0] not in _MODES:
            known = " or ".join(_MODES)
            raise UserError(
                f"pooling {', '.join(asked) or 'by nothing'} is not supported", where=str(file), fix=f"Choose {known}"
            )
        if _MODES[asked[0]] == "mean":
            return cls()
        return cls("last", _appended(json.loads(tokenizer.json).get("post_processor")))

    @torch.inference_mode()
    def embed(self, model: Transformer, ids: Sequence[int]) -> list[float]:
        """A text as a vector of length 1.

        Args:
            model: in evaluation mode.
            ids: the text with its end, at least one token and at most a context long.

        Returns:
            ``d_model`` numbers.
        """
        hidden = model(torch.tensor([list(ids)], device=model.embedding.weight.device))[0].double()
        vector = hidden.mean(0) if self.kind == "mean" else hidden[-1]
        scaled: list[float] = (vector / vector.norm().clamp(min=1e-12)).float().tolist()
        return scaled

    def ended(self, ids: Sequence[int]) -> Sequence[int]:
        """A text's tokens with their end."""
        return ids if self.end is None or (len(ids) and ids[-1] == self.end) else [*ids, self.end]


def _appended(processor: Any) -> int | None:
    """The control token that a tokenizer.json puts after a text."""
    if not isinstance(processor, dict):
        return None
    if processor.get("type") == "Sequence":
        found = [_appended(part) for part in processor.get("processors", ())]
        return next((token for token in found if token is not None), None)
    if processor.get("type") != "TemplateProcessing" or not processor.get("single"):
        return None
    name = processor["single"][-1].get("SpecialToken", {}).get("id")
    ids = processor.get("special_tokens", {}).get(name, {}).get("ids", ())
    return int(ids[0]) if len(ids) == 1 else None
