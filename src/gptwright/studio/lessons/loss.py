"""Lesson 3: loss. How surprised the model is by each token of a sentence, in bits, beside two simpler guesses.

    bits = -log2 p(token | all before it)      perplexity = 2 ** mean bits      bits per byte = all bits / bytes of text

Source: Shannon 1948; bits per byte as the score that no tokenizer can flatter: Gao et al. 2020 (arXiv 2101.00027), section 3.1.
"""

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.studio.lessons.common import Framed, Verdict, bar, clip, frame, judge, open_engine, script, visible

if TYPE_CHECKING:
    from torch import Tensor

    from gptwright.model.transformer import Transformer
    from gptwright.tokens.tokenizer import Tokenizer

TEXT = "I am doing well, thank you! And you?"
OPENING = "How are you?"
_COUNTED_BYTES = 2_000_000  # of training text, for the bigram guess: about a second


def run(model_dir: Path, text: str = TEXT) -> tuple[dict[str, Any], str]:
    """The lesson. Returns what was computed, and the same as text.

    Args:
        model_dir: a model directory; where a corpus lies beside it, as in a project, the bigram guess is counted on it.
        text: a sentence, scored as the answer to "How are you?": answers are what fine-tuning teaches.
    """
    engine = open_engine(model_dir)
    model, tokenizer = engine.model, engine.tokenizer
    framed = frame(tokenizer, text, model.config.seq_len - 1, OPENING)  # one place for the question's token
    log_p = log_probabilities(model, tokenizer, framed.ids)
    bits = token_bits(log_p, framed)
    content = framed.ids[framed.start :]
    size = sum(len(tokenizer.token_bytes(i)) for i in content)
    uniform = math.log2(tokenizer.vocab_size)
    bigram = Bigram.of_corpus(model_dir, tokenizer)
    simple = bigram.bits(content) if bigram else None
    likely = int(log_p[-1].argmax())
    p = math.exp(float(log_p[-1, likely]))
    question = (
        f"After the sentence the model holds {visible(tokenizer, likely)!r} likeliest, with probability {p:.3f}. "
        f"If it comes indeed, by how many bits does the sum grow?"
    )
    rows = [
        {
            "token": visible(tokenizer, i),
            "id": i,
            "bits": b,
            "probability": 2**-b,
            "bigram_bits": simple[k] if simple else None,
        }
        for k, (i, b) in enumerate(zip(content, bits, strict=True))
    ]
    data = {
        "tokens": rows,
        "bytes": size,
        "guesses": {
            "model": _sums(bits, size),
            "bigram": _sums(simple, size) if simple else None,
            "uniform": _sums([uniform] * len(bits), size),
        },
        "bigram_counted_on": bigram.bytes if bigram else 0,
        "question": question,
    }
    return data, _shown(data)


def check(answer: float, model_dir: Path, text: str = TEXT) -> Verdict:
    """Check an answer to the question by scoring the longer sentence.

    Args:
        answer: bits.
        model_dir: the same directory.
        text: the same sentence.
    """
    engine = open_engine(model_dir)
    model, tokenizer = engine.model, engine.tokenizer
    framed = frame(tokenizer, text, model.config.seq_len - 1, OPENING)
    likely = int(log_probabilities(model, tokenizer, framed.ids)[-1].argmax())
    longer = Framed([*framed.ids, likely], framed.start)
    more = token_bits(log_probabilities(model, tokenizer, longer.ids), longer)[-1]
    why = f"Bits are -log2 of the probability: a token at 1/2 costs 1 bit, at 1/4 costs 2, and this one, at {2**-more:.3f}, {more:.2f}."
    return judge(answer, more, why, absolute=0.05)


def log_probabilities(model: "Transformer", tokenizer: "Tokenizer", ids: list[int]) -> "Tensor":
    """Natural log-probabilities (T, vocab_size) of what comes after each token."""
    import torch

    with torch.inference_mode():
        logits = model.logits(model(torch.tensor([ids])))[0, :, : tokenizer.vocab_size]
        return logits.double().log_softmax(-1)


def token_bits(log_p: "Tensor", framed: Framed) -> list[float]:
    """Bits of each token of the sentence: row i - 1 says what the model expected at i."""
    return [-float(log_p[i - 1, framed.ids[i]]) / math.log(2) for i in range(framed.start, len(framed.ids))]


class Bigram:
    """A guess from the one token before: counts of pairs, backed by counts of tokens.

    Source: Witten-Bell smoothing (Chen & Goodman 1999, section 2.6): no number has to be chosen.
    """

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size, self.bytes = vocab_size, 0
        self.single: Counter[int] = Counter()
        self.pairs: defaultdict[int, Counter[int]] = defaultdict(Counter)

    @classmethod
    def of_corpus(cls, model_dir: Path, tokenizer: "Tokenizer") -> "Bigram | None":
        """Count the training text of the project that the model lies in; None where there is none."""
        corpus = model_dir.resolve().parent.parent / "corpus"
        if not (corpus / "docs").is_dir():
            return None
        made = cls(tokenizer.vocab_size)
        texts: list[str] = []
        for text in _texts(corpus):
            texts.append(text)
            made.bytes += len(text.encode())
            if made.bytes >= _COUNTED_BYTES:
                break
        for ids in tokenizer.encode_batch(texts):
            made.add(ids)
        return made if texts else None

    def add(self, ids: list[int]) -> None:
        """Count a text; -1 stands before its first token."""
        self.single.update(ids)
        for before, after in zip([-1, *ids], ids, strict=False):
            self.pairs[before][after] += 1

    def bits(self, ids: list[int]) -> list[float]:
        """Bits of each token of a text."""
        return [-math.log2(self.probability(b, a)) for b, a in zip([-1, *ids], ids, strict=False)]

    def probability(self, before: int, after: int) -> float:
        """Of a token after another; never zero."""
        alone = (self.single[after] + 1) / (self.single.total() + self.vocab_size)
        seen = self.pairs.get(before)
        if not seen:
            return alone
        return (seen[after] + len(seen) * alone) / (seen.total() + len(seen))


def _texts(corpus: Path) -> Iterator[str]:
    from gptwright.corpus.view import documents

    for document in documents(corpus, "train"):
        if document.messages:
            yield from (m["content"].strip() for m in document.messages)
        else:
            yield document.text


def _sums(bits: list[float], size: int) -> dict[str, float]:
    mean = sum(bits) / len(bits)
    return {"bits": sum(bits), "bits_per_token": mean, "perplexity": 2**mean, "bits_per_byte": sum(bits) / size}


def _shown(data: dict[str, Any]) -> str:
    rows, guesses = data["tokens"], data["guesses"]
    uniform = guesses["uniform"]["bits_per_token"]
    full = max(uniform, *(row["bits"] for row in rows))
    lines = ["LOSS: the surprise at each token, in bits. Training does one thing: it makes this smaller.", ""]
    lines += [f"The sentence as the answer to {OPENING!r}:", ""]
    lines.append(
        f"  {'token':14} {'bits':>6}  {'p':>7}  {'bar: the model':30}"
        + ("  a bigram's bits" if guesses["bigram"] else "")
    )
    for row in rows:
        simple = f"  {row['bigram_bits']:>6.2f}" if row["bigram_bits"] is not None else ""
        lines.append(
            f"  {clip(row['token'], 14)} {row['bits']:>6.2f}  {row['probability']:>7.2%}  {clip(bar(row['bits'], full, 30), 30)}{simple}"
        )
    lines += ["", f"  {'guess':8} {'bits per token':>14} {'perplexity':>11} {'bits per byte':>14}"]
    for name, sums in guesses.items():
        if sums:
            lines.append(
                f"  {name:8} {sums['bits_per_token']:>14.2f} {sums['perplexity']:>11.1f} {sums['bits_per_byte']:>14.2f}"
            )
    counted = data["bigram_counted_on"]
    lines += [
        "",
        f"  uniform: every token of the vocabulary alike ({uniform:.2f} bits each).",
        f"  bigram: only the token before, counted on {counted:,} bytes of this project's training text."
        if counted
        else "  bigram: left out, no corpus lies beside this model.",
        "  These three sums are for one sentence; `gptwright evaluate` measures on all held-out text.",
        "  perplexity: among how many equally likely tokens the model seems to choose.",
        "",
        f"Question: {data['question']}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(script(run, check, TEXT))
