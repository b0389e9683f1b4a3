"""Lesson 4: sampling. The model gives odds for the next token; temperature, top-k and top-p reshape them; a seed picks.

    p_T[i] = softmax(logits / T)[i], so that odds between two tokens become (p[i] / p[j]) ** (1 / T)

Everything here goes through ``infer/sampling.py``, the code that answers in chat. Source: nucleus sampling: Holtzman et al. 2019
(arXiv 1904.09751).
"""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.studio.lessons.common import Verdict, bar, clip, judge, open_engine, script, visible

if TYPE_CHECKING:
    from torch import Tensor

    from gptwright.infer.engine import Engine

TEXT = "Hello! How are you?"
SETTINGS: dict[str, dict[str, Any]] = {
    "T=1": {"temperature": 1.0},
    "T=0.5": {"temperature": 0.5},
    "T=1.5": {"temperature": 1.5},
    "top-k 5": {"temperature": 1.0, "top_k": 5},
    "top-p 0.9": {"temperature": 1.0, "top_p": 0.9},
}
_ROWS = 10
_SEEDS = (7, 7, 8)


def run(model_dir: Path, text: str = TEXT) -> tuple[dict[str, Any], str]:
    """The lesson. Returns what was computed, and the same as text.

    Args:
        model_dir: a model directory.
        text: what the user says (or, without a chat template, the text to continue).
    """
    from gptwright.infer.config import GenerationConfig

    with open_engine(model_dir) as engine:
        tokenizer = engine.tokenizer
        ids = prompt_ids(engine, text)
        odds = {name: probabilities(engine, ids, settings) for name, settings in SETTINGS.items()}
        top = odds["T=1"].topk(min(_ROWS, len(odds["T=1"]))).indices.tolist()
        rows = [
            {"id": i, "token": visible(tokenizer, i), **{name: float(p[i]) for name, p in odds.items()}} for i in top
        ]
        sums = {
            name: {"left": int((p > 0).sum()), "entropy_bits": float(-(p * p.clamp_min(1e-300).log2()).sum())}
            for name, p in odds.items()
        }
        configs = [GenerationConfig(max_tokens=24, temperature=0.8, top_p=0.95, seed=seed) for seed in _SEEDS]
        texts = [r.text for r in engine.generate([ids] * len(configs), configs)]
    first, second = rows[0], rows[1]
    ratio = first["T=1"] / second["T=1"]
    question = (
        f"At temperature 1, {first['token']!r} is {ratio:.3g} times as likely as {second['token']!r}. "
        f"How many times at temperature 0.5?"
    )
    data = {
        "rows": rows,
        "settings": sums,
        "answers": [{"seed": s, "text": t} for s, t in zip(_SEEDS, texts, strict=True)],
        "question": question,
    }
    return data, _shown(data)


def check(answer: float, model_dir: Path, text: str = TEXT) -> Verdict:
    """Check an answer to the question on the odds at temperature 0.5; a twentieth off is near enough.

    Args:
        answer: how many times as likely.
        model_dir: the same directory.
        text: the same text.
    """
    with open_engine(model_dir) as engine:
        ids = prompt_ids(engine, text)
        first, second = probabilities(engine, ids, SETTINGS["T=1"]).topk(2).indices.tolist()
        cold = probabilities(engine, ids, SETTINGS["T=0.5"])
    ratio = float(cold[first] / cold[second])
    why = "Dividing the logits by 0.5 doubles their distance, and odds are squared: low temperature trusts the favourite more."
    return judge(answer, ratio, why, relative=0.05)


def prompt_ids(engine: "Engine", text: str) -> list[int]:
    """The prompt as chat would give it; without a chat template, the text itself.

    Raises:
        UserError: nothing is there, or it does not fit into the context.
    """
    if not text.strip():
        raise UserError("the sentence is empty", fix="Give some words with --text")
    tokenizer = engine.tokenizer
    if tokenizer.template is None and tokenizer.im_start_id is None:
        ids = engine.encode_prompt(text)
    else:
        ids = tokenizer.render([{"role": "user", "content": text}], add_generation_prompt=True).ids
    if len(ids) >= engine.seq_len:
        raise UserError(
            f"the text has {len(ids):,} tokens, the model reads {engine.seq_len - 1:,}", fix="Give a shorter one"
        )
    return ids


def probabilities(engine: "Engine", ids: list[int], settings: dict[str, Any]) -> "Tensor":
    """Odds of the next token (vocab_size,) in fp64, by the sampler that chat uses; 0 where filtered out."""
    import torch

    from gptwright.infer.config import GenerationConfig
    from gptwright.infer.sampling import SamplerRows, process_logits

    size = engine.tokenizer.vocab_size
    with torch.inference_mode():
        logits = engine.model.logits(engine.model(torch.tensor([ids])))[:, -1, :size].float()
        rows = SamplerRows.build([GenerationConfig(**settings)], size)
        return process_logits(logits, rows)[0].double().softmax(-1)


def _shown(data: dict[str, Any]) -> str:
    rows, sums = data["rows"], data["settings"]
    full = max(row["T=1"] for row in rows)
    names = list(SETTINGS)
    lines = ["SAMPLING: the model does not write a word, it gives odds for every token. Then one is drawn.", ""]
    lines.append(f"  {'next token':14} {'':24}  " + " ".join(f"{name:>9}" for name in names))
    for row in rows:
        odds = " ".join(f"{row[name]:>9.1%}" if row[name] > 0 else f"{'-':>9}" for name in names)
        lines.append(f"  {clip(row['token'], 14)} {clip(bar(row['T=1'], full), 24)}  {odds}")
    lines.append(f"  {'tokens left':39}  " + " ".join(f"{sums[name]['left']:>9,}" for name in names))
    lines.append(
        f"  {'doubt (entropy, bits)':39}  " + " ".join(f"{sums[name]['entropy_bits']:>9.2f}" for name in names)
    )
    width = math.ceil(math.log10(max(_SEEDS) + 1))
    lines += ["", "The same seed draws the same text (temperature 0.8, top-p 0.95):"]
    lines += [f"  seed {a['seed']:>{width}}: {a['text'].strip()!r}" for a in data["answers"]]
    lines += ["", f"Question: {data['question']}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(script(run, check, TEXT))
