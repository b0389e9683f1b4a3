"""Lesson 2: attention. Which earlier tokens each head looks at, recomputed from the model's own queries and keys.

    weights[i, j] = softmax over j <= i of  q[i] . k[j] / sqrt(d_head)        output[i] = sum over j of weights[i, j] v[j]

Source: Vaswani et al. 2017 (arXiv 1706.03762); induction heads and how to find them: Olsson et al. 2022 (2209.11895); attention sinks:
Xiao et al. 2023 (2309.17453). Shapes: B batch, T time, D d_model, H query heads, K key/value heads, E d_head.
"""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.studio.lessons.common import Verdict, clip, frame, judge, open_engine, script, visible

if TYPE_CHECKING:
    from torch import Tensor

    from gptwright.model.transformer import Attention, Transformer

TEXT = "I like music and you like music too, so what music do you like?"
SHADES = ((0.05, " "), (0.2, "░"), (0.4, "▒"), (0.7, "▓"), (1.0, "█"))  # up to this weight, this shade
_SHOWN_TOKENS = 24
# A kind is named when the head gives it this share of its attention; an even head gives each far less on the same tokens.
_LABEL_AT = 0.4
_REPEAT = 24  # tokens of the random stretch that is shown twice


def run(model_dir: Path, text: str = TEXT) -> tuple[dict[str, Any], str]:
    """The lesson. Returns what was computed, and the same as text.

    Args:
        model_dir: a model directory.
        text: a sentence; of a long one the first 24 tokens are drawn.
    """
    engine = open_engine(model_dir)
    model, tokenizer = engine.model, engine.tokenizer
    framed = frame(tokenizer, text, model.config.seq_len)
    ids = framed.ids[: framed.start + _SHOWN_TOKENS]
    maps, gap = attention_maps(model, ids)
    scores = head_scores(model, maps, framed.start)
    layer, head = _most_telling(scores, maps, framed.start)
    drawn = maps[layer][head]
    start = framed.start
    # The frame (control tokens and the role) is one column: what the head puts there is part of the truth.
    rows = [[float(drawn[i, :start].sum()), *(float(w) for w in drawn[i, start:])] for i in range(start, len(ids))]
    question = (
        "Take another token in place of the last one. What is the largest change in the attention weights of all earlier tokens, "
        "over all layers and heads?"
    )
    data = {
        "tokens": [visible(tokenizer, i) for i in ids[start:]],
        "before": [visible(tokenizer, i) for i in ids[:start]],
        "heads": scores,
        "drawn": {"layer": layer, "head": head, "weights": rows},
        "gap_to_model": gap,
        "question": question,
    }
    return data, _shown(data, len(framed.ids) > len(ids))


def check(answer: float, model_dir: Path, text: str = TEXT) -> Verdict:
    """Check an answer to the question by swapping the last token and computing all weights again.

    Args:
        answer: the largest change.
        model_dir: the same directory.
        text: the same sentence.
    """
    engine = open_engine(model_dir)
    ids = frame(engine.tokenizer, text, engine.model.config.seq_len).ids
    other = next(
        i for i in range(len(engine.tokenizer.byte_lengths)) if i != ids[-1] and engine.tokenizer.byte_lengths[i]
    )
    before, _ = attention_maps(engine.model, ids)
    after, _ = attention_maps(engine.model, [*ids[:-1], other])
    change = max(float((a - b)[:, :-1].abs().max()) for a, b in zip(before, after, strict=True))
    why = "The causal mask: no token sees a later one. So one pass over a text trains every position at once, and keys can be cached."
    # Matrix products of the same rows may round differently in the last bits.
    return judge(answer, 0.0 if change < 1e-5 else change, why, absolute=1e-3)


def recompute(attention: "Attention", x_btd: "Tensor", rope: "tuple[Tensor, Tensor] | None") -> "tuple[Tensor, Tensor]":
    """Attention by its definition, with the module's own weights; the model itself never forms the weights as a matrix.

    Args:
        attention: a block's attention.
        x_btd: its input, after the norm.
        rope: rotary cosine and sine, or None.

    Returns:
        Weights (B, H, T, T), rows sum to 1, zero above the diagonal; and the output (B, T, D).
    """
    import torch

    from gptwright.model.transformer import rotate

    c = attention.config
    b, t, _ = x_btd.shape
    qkv = attention.qkv(x_btd).view(b, t, c.n_heads + 2 * c.n_kv_heads, c.d_head)
    q, k, v = qkv.split([c.n_heads, c.n_kv_heads, c.n_kv_heads], dim=2)
    if attention.q_norm is not None and attention.k_norm is not None:
        q, k = attention.q_norm(q), attention.k_norm(k)
    if rope is not None:
        q, k = rotate(q, *rope), rotate(k, *rope)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, E)
    group = c.n_heads // c.n_kv_heads  # query heads that share a key/value head
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.transpose(-1, -2) / math.sqrt(c.d_head)
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -math.inf).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).reshape(b, t, -1)
    return weights, attention.out(mixed)


def attention_maps(model: "Transformer", ids: "list[int]") -> "tuple[list[Tensor], float]":
    """Weights of every layer for one text, and how far the recomputed outputs are from the model's own.

    Args:
        model: in fp32.
        ids: token ids.

    Returns:
        A tensor (H, T, T) a layer, and the largest absolute difference of the outputs.
    """
    import torch

    from gptwright.model.transformer import rope_tables

    maps, gap = [], 0.0
    with torch.inference_mode():
        positions = torch.arange(len(ids))[None]
        x = model.embedding(torch.tensor([ids]))
        rope = None
        if model.positions is not None:
            x = x + model.positions(positions)
        else:
            c = model.config
            rope = rope_tables(positions, c.d_head, c.rope_theta, x.dtype, c.rope_scaling)
        for block in model.blocks:
            normed = block.norm1(x)  # type: ignore[operator]
            weights, output = recompute(block.attention, normed, rope)  # type: ignore[arg-type]
            gap = max(gap, float((output - block.attention(normed, rope, None)).abs().max()))  # type: ignore[operator]
            maps.append(weights[0])
            x = block(x, rope)
    return maps, gap


def head_scores(model: "Transformer", maps: "list[Tensor]", start: int) -> list[dict[str, Any]]:
    """What each head does, by measurement.

    ``previous``, ``itself`` and ``first``: mean weight on the token before, the same token, the text's very first token, over the
    sentence. ``again``: on random tokens shown twice, mean weight on the token that followed the first showing (induction).

    Args:
        model: in fp32.
        maps: weights of the sentence, (H, T, T) a layer.
        start: where the sentence begins.

    Returns:
        One row a head: layer, head, the four scores, and a label, empty where no score reaches 0.4.
    """
    import torch

    n = min(_REPEAT, model.config.seq_len // 2)
    low = min(8, model.config.vocab_size - 1)  # ids below are control tokens in vocabularies made here
    once = torch.randint(low, model.config.vocab_size, (n,), generator=torch.Generator().manual_seed(0)).tolist()
    repeated, _ = attention_maps(model, [*once, *once])
    rows = []
    for layer, (here, twice) in enumerate(zip(maps, repeated, strict=True)):
        at = torch.arange(max(start, 1), here.shape[-1])
        second = torch.arange(n, 2 * n - 1)
        parts = {
            "previous": here[:, at, at - 1].mean(-1),
            "itself": here[:, at, at].mean(-1),
            "first": here[:, at, 0].mean(-1),
            "again": twice[:, second, second - n + 1].mean(-1),
        }
        for head in range(here.shape[0]):
            scores = {name: round(float(value[head]), 4) for name, value in parts.items()}
            best = max(scores, key=lambda name: scores[name])
            rows.append({"layer": layer, "head": head, **scores, "label": best if scores[best] >= _LABEL_AT else ""})
    return rows


def _most_telling(scores: list[dict[str, Any]], maps: "list[Tensor]", start: int) -> tuple[int, int]:
    """The head to draw: the strongest previous-token head if there is one, else the one that looks most at the sentence itself."""
    best = max(scores, key=lambda row: row["previous"])
    if best["previous"] < _LABEL_AT:
        best = max(scores, key=lambda row: float(maps[row["layer"]][row["head"], start:, start:].sum()))
    return int(best["layer"]), int(best["head"])


def _shade(weight: float) -> str:
    return next((shade for upto, shade in SHADES if weight < upto), SHADES[-1][1]) * 2


def _shown(data: dict[str, Any], cut: bool) -> str:
    drawn, names, heads = data["drawn"], data["tokens"], data["heads"]
    lines = ["ATTENTION: each token looks back at earlier ones and takes something from them.", ""]
    lines.append(
        f"Layer {drawn['layer']}, head {drawn['head']}. A row is a token, a column what it looks at; each row adds up to 1."
    )
    lines.append(
        f"Shades: {'  '.join(f'{shade * 2} under {upto:.0%}' for upto, shade in SHADES)}  ·· the future, which it cannot see"
    )
    if cut:
        lines.append(f"Only the first {len(names)} tokens are drawn.")
    lines += [
        "",
        f"  {'':12} what stands before ({clip(' '.join(data['before']), 60).strip()}) is column ⊢",
        f"  {'':14}⊢ " + "".join(f"{i % 100:<2}" for i in range(len(names))),
    ]
    for i, row in enumerate(drawn["weights"]):
        future = "··" * (len(names) - 1 - i)
        seen = "".join(_shade(w) for w in row[: i + 2])
        lines.append(f"  {i:>2} {clip(names[i], 10)} {seen}{future}")
    lines += ["", f"What each head does (share of its attention; a kind is named from {_LABEL_AT:.0%}):"]
    for kind, meaning in {
        "previous": "the token before",
        "itself": "the same token",
        "first": "the very first token: a resting place",
        "again": "after a repeat, what came next the first time: induction",
    }.items():
        found = [r for r in heads if r["label"] == kind]
        told = "  ".join(f"{r['layer']}.{r['head']} ({r[kind]:.0%})" for r in found[:8]) or "none"
        lines.append(f"  {kind:<9} {meaning:<57} {told}")
    free = sum(not r["label"] for r in heads)
    lines += [
        f"  {free} of {len(heads)} heads look at something else, or spread out. (layer.head, counted from 0)",
        "",
        f"Recomputed by hand from the model's own queries, keys and values; largest difference to the model's output: {data['gap_to_model']:.1e}",
        "",
        f"Question: {data['question']}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(script(run, check, TEXT))
