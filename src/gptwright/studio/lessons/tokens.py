"""Lesson 1: a model reads numbers. How a text splits into tokens, how pairs of bytes grew into words, what the vocabulary learnt.

Byte-level BPE: begin with the 256 bytes, and merge the most frequent neighbours again and again. Nothing is ever unknown: what was not
merged stays bytes. Source: Sennrich et al. 2016 (arXiv 1508.07909); bytes as the alphabet: GPT-2 (Radford et al. 2019).
"""

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.studio.lessons.common import Verdict, bar, clip, judge, script, visible

if TYPE_CHECKING:
    from gptwright.tokens.tokenizer import Tokenizer

TEXT = "What do you like to do at the weekend?"
QUESTION_TEXT = "Καλημέρα κόσμε"


def run(model_dir: Path, text: str = TEXT) -> tuple[dict[str, Any], str]:
    """The lesson. Returns what was computed, and the same as text.

    Args:
        model_dir: a model directory with a tokenizer.
        text: any text.
    """
    from gptwright.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(model_dir)
    ids = tokenizer.encode(text)
    pieces = [{"id": i, "text": visible(tokenizer, i), "bytes": len(tokenizer.token_bytes(i))} for i in ids]
    rows = [_measure(tokenizer, "your text", text)]
    changed = {"in capitals": text.upper(), "without spaces": text.replace(" ", ""), "backwards": text[::-1]}
    rows += [_measure(tokenizer, name, other) for name, other in changed.items()]
    word = max((w for w in text.split() if w.isalpha()), key=len, default="")
    steps = growth(model_dir, tokenizer, f" {word}") if word else []
    vocabulary = _vocabulary(model_dir, tokenizer)
    size = len(QUESTION_TEXT.encode())
    question = (
        f"How many tokens does {QUESTION_TEXT!r} take? It has {len(QUESTION_TEXT)} characters and {size} bytes; "
        f"{vocabulary['beyond_ascii']} tokens of this vocabulary hold a whole letter beyond ASCII."
    )
    data = {
        "tokens": pieces,
        "texts": rows,
        "word": word,
        "growth": steps,
        "vocabulary": vocabulary,
        "question": question,
    }
    return data, _shown(data)


def check(answer: float, model_dir: Path, text: str = TEXT) -> Verdict:
    """Check an answer to the question: a tenth off is near enough.

    Args:
        answer: number of tokens.
        model_dir: the same directory.
        text: not looked at; the question has its own text.
    """
    from gptwright.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(model_dir)
    ids = tokenizer.encode(QUESTION_TEXT)
    split = "|".join(visible(tokenizer, i) for i in ids[:12]) + ("|…" if len(ids) > 12 else "")
    why = f"It splits as {split}: what the corpus did not hold was never merged, and costs a token a byte."
    return judge(answer, len(ids), why, relative=0.1)


def growth(model_dir: Path, tokenizer: "Tokenizer", piece: str) -> list[list[str]]:
    """How a word grew from bytes: the pieces after each merge, in the order that the encoder makes them.

    Args:
        model_dir: where tokenizer.json is.
        tokenizer: the same, opened.
        piece: a word with the space before it.

    Returns:
        One list of pieces a step, bytes first, tokens last; empty where the vocabulary is no byte-level BPE.
    """
    ranks = _ranks(model_dir, tokenizer)
    of_byte = {raw[0]: i for i in range(tokenizer.vocab_size) if len(raw := tokenizer.token_bytes(i)) == 1}
    raw_text = piece.encode()
    if not ranks or any(byte not in of_byte for byte in raw_text):
        return []
    row = [of_byte[byte] for byte in raw_text]
    steps = [row]
    while pairs := [pair for pair in itertools.pairwise(row) if pair in ranks]:
        best = min(pairs, key=lambda pair: ranks[pair][0])
        merged: list[int] = []
        at = 0
        while at < len(row):
            if tuple(row[at : at + 2]) == best:
                merged.append(ranks[best][1])
                at += 2
            else:
                merged.append(row[at])
                at += 1
        row = merged
        steps.append(row)
    # A foreign pre-tokenizer may cut elsewhere: then this story would not be what happened.
    return [[visible(tokenizer, i) for i in step] for step in steps] if row == tokenizer.encode(piece) else []


def _merges(model_dir: Path) -> list[tuple[str, str]]:
    model = json.loads((model_dir / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    found = [m.split(" ", 1) if isinstance(m, str) else m for m in model.get("merges") or ()]
    return [(left, right) for left, right in found]


def _ranks(model_dir: Path, tokenizer: "Tokenizer") -> dict[tuple[int, int], tuple[int, int]]:
    """Pair of ids to the merge's rank and the id it makes."""
    table = {}
    for rank, (left, right) in enumerate(_merges(model_dir)):
        a, b, made = tokenizer.token_id(left), tokenizer.token_id(right), tokenizer.token_id(left + right)
        if a is not None and b is not None and made is not None:
            table[a, b] = (rank, made)
    return table


def _measure(tokenizer: "Tokenizer", name: str, text: str) -> dict[str, Any]:
    count, size = len(tokenizer.encode(text)), len(text.encode())
    return {"name": name, "tokens": count, "bytes": size, "bytes_per_token": round(size / max(count, 1), 3)}


def _vocabulary(model_dir: Path, tokenizer: "Tokenizer") -> dict[str, Any]:
    ordinary = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i)]
    merges = _merges(model_dir)
    made = [i for pair in merges[:10] if (i := tokenizer.token_id("".join(pair))) is not None]
    longest = sorted(ordinary, key=lambda i: (-len(tokenizer.token_bytes(i)), i))[:12]
    beyond = sum(_holds_letter(tokenizer.token_bytes(i)) for i in ordinary)
    return {
        "size": tokenizer.vocab_size,
        "control": len(tokenizer.control_ids),
        "bytes": sum(len(tokenizer.token_bytes(i)) == 1 for i in ordinary),
        "merges": len(merges),
        "first_merges": [visible(tokenizer, i) for i in made],
        "longest": [visible(tokenizer, i) for i in longest],
        "beyond_ascii": beyond,
    }


def _holds_letter(raw: bytes) -> bool:
    try:
        return any(ord(c) > 127 and c.isalpha() for c in raw.decode())
    except UnicodeDecodeError:
        return False


def _shown(data: dict[str, Any]) -> str:
    pieces, v = data["tokens"], data["vocabulary"]
    full = max(row["bytes_per_token"] for row in data["texts"])
    lines = ["TOKENS: a model reads numbers, not letters. A space is shown as ·", ""]
    lines += ["  " + " | ".join(p["text"] for p in pieces), "  " + " ".join(str(p["id"]) for p in pieces), ""]
    lines.append("How much text a token carries (bytes per token). The same letters, less like the corpus:")
    for row in data["texts"]:
        lines.append(
            f"  {clip(row['name'], 15)} {row['tokens']:>4} tokens {row['bytes']:>4} bytes "
            f"{row['bytes_per_token']:>6.2f}  {bar(row['bytes_per_token'], full)}"
        )
    if data["growth"]:
        lines += ["", f"How {data['word']!r} grew: the earliest merge first, until none is left"]
        lines += ["  " + " ".join(step) for step in data["growth"]]
    lines += [
        "",
        f"The vocabulary: {v['size']:,} ids = {v['control']} control + {v['bytes']} bytes + what {v['merges']:,} merges made",
        f"  first merges (the most frequent pairs): {'  '.join(v['first_merges'])}",
        f"  longest tokens (what the corpus says all the time): {'  '.join(clip(t, 24).strip() for t in v['longest'])}",
        "",
        f"Question: {data['question']}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(script(run, check, TEXT))
