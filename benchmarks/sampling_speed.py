"""Drawing the next token for a batch, against transformers' logits processors and ``torch.multinomial``; and what structured output adds.

Processor time of one thread for 32 rows of 49,152 logits, the best of several turns in which the sides alternate.

Run: python benchmarks/sampling_speed.py
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gptwright.infer.config import Form, GenerationConfig
from gptwright.infer.history import History
from gptwright.infer.sampling import Sampler
from gptwright.infer.structured import Forms, Guide
from gptwright.tokens.tokenizer import train_tokenizer

ROWS, VOCAB, TURNS = 32, 49_152, 7
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def fastest(*sides: Callable[[], object]) -> list[float]:
    """Least processor time of each, in ms, taken in turns."""
    best = [float("inf")] * len(sides)
    for _ in range(TURNS):
        for index, side in enumerate(sides):
            begin = time.process_time()
            side()
            best[index] = min(best[index], (time.process_time() - begin) * 1e3)
    return best


def against_transformers(name: str, config: GenerationConfig, processors: list[Any]) -> None:
    """One line: ours, theirs, ratio."""
    from transformers import LogitsProcessorList

    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(ROWS, VOCAB, generator=generator)
    prompt = torch.randint(0, VOCAB, (ROWS, 640), generator=generator)
    sampler = Sampler([config] * ROWS, VOCAB)
    histories = [History.wanted(config, row, VOCAB) for row in prompt.tolist()]
    chain = LogitsProcessorList(processors)

    def theirs() -> object:
        scores = chain(prompt, logits.clone())
        return torch.multinomial(scores.softmax(-1), 1) if config.temperature else scores.argmax(-1)

    ours_ms, theirs_ms = fastest(lambda: sampler(logits, [0.5] * ROWS, histories), theirs)
    print(f"{name:44} {ours_ms:7.1f} ms {theirs_ms:9.1f} ms {theirs_ms / ours_ms:6.1f}x")


def masks() -> None:
    """What the masks of 32 answers in a JSON schema cost."""
    with TemporaryDirectory() as folder:
        text = Path(__file__).parents[1].joinpath("docs/guide/serve.md").read_text(encoding="utf-8")
        tokenizer = train_tokenizer([text], 2000, Path(folder) / "t")
    forms, guides = Forms(tokenizer, tokenizer.vocab_size), list[Guide]()
    for _ in range(ROWS):
        guide = forms.open(Form(kind="json_schema", text=json.dumps(SCHEMA)))
        for token in tokenizer.encode('{"name": "Ann'):
            guide.allowed()
            guide.accept(token)
        guides.append(guide)
    (ms,) = fastest(lambda: [guide.allowed() for guide in guides])
    print(f"{f'masks of {ROWS} answers, {tokenizer.vocab_size:,} ids':44} {ms:7.1f} ms")


def main() -> None:
    """Measure and print."""
    import transformers as t

    torch.set_num_threads(1)
    print(f"{'':44} {'gptwright':>10} {'transformers':>12} {'ratio':>7}")
    against_transformers("greedy", GenerationConfig(temperature=0), [])
    warm = t.TemperatureLogitsWarper(0.8)
    against_transformers("temperature", GenerationConfig(temperature=0.8), [warm])
    against_transformers("top-p 0.9", GenerationConfig(temperature=0.8, top_p=0.9), [warm, t.TopPLogitsWarper(0.9)])
    config = GenerationConfig(temperature=0.8, top_k=40, top_p=0.9, min_p=0.02, repetition_penalty=1.1)
    chain = [t.RepetitionPenaltyLogitsProcessor(1.1), warm, t.TopKLogitsWarper(40), t.TopPLogitsWarper(0.9)]
    against_transformers("penalty, top-k, top-p, min-p", config, [*chain, t.MinPLogitsWarper(0.02)])
    against_transformers(
        "typical 0.9", GenerationConfig(temperature=0.8, typical_p=0.9), [warm, t.TypicalLogitsWarper(0.9)]
    )
    masks()


if __name__ == "__main__":
    main()
