"""What a model makes of a text that is given: log-probabilities of its tokens. Nothing is generated.

One text at a time and in one piece, so that a number does not depend on what else was asked in the same request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gptwright.model.transformer import Transformer

# Logits worked on at once: a whole text's would be gigabytes at a large vocabulary.
_ROWS = 64


@dataclass(frozen=True)
class TokenScore:
    """A token of a given text.

    Attributes:
        token_id: the token.
        logprob: its log-probability after all before it; None for the first. Nats.
        top: the likeliest (token id, log-probability) pairs at its place.
    """

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@torch.inference_mode()
def score(model: Transformer, ids: Sequence[int], vocab_size: int, top: int = 0) -> list[TokenScore]:
    """Log-probabilities of a text's tokens under the model itself (temperature 1, nothing filtered).

    Args:
        model: in evaluation mode.
        ids: the text, at most a context long.
        vocab_size: real ids; padding rows of the embedding have no probability.
        top: how many alternatives to report at each place.

    Returns:
        One entry a token; softmax in float64 on the model's logits.
    """
    if len(ids) < 2:
        return [TokenScore(token, None) for token in ids]
    device = model.embedding.weight.device
    hidden = model(torch.tensor([list(ids)[:-1]], device=device))[0]
    head = model.head_weight[:vocab_size]
    found = [TokenScore(int(ids[0]), None)]
    for at in range(0, len(hidden), _ROWS):
        logits = torch.nn.functional.linear(hidden[at : at + _ROWS], head).double()
        logprobs = torch.log_softmax(logits, -1)
        targets = torch.tensor(list(ids)[at + 1 : at + 1 + len(logits)], device=device)
        chosen = logprobs.gather(1, targets[:, None])[:, 0].tolist()
        best: list[tuple[tuple[int, float], ...]] = [()] * len(logits)
        if top:
            values, indices = logprobs.topk(min(top, vocab_size), dim=-1)
            best = [tuple(zip(i, v, strict=True)) for i, v in zip(indices.tolist(), values.tolist(), strict=True)]
        found += [
            TokenScore(int(token), value, alternatives)
            for token, value, alternatives in zip(targets.tolist(), chosen, best, strict=True)
        ]
    return found
