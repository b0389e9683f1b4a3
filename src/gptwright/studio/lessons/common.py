"""What the lessons share: the opened model, a sentence in the frame that the model knows, bars, verdicts, and the script's main."""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import GptwrightError, UserError

if TYPE_CHECKING:
    from gptwright.infer.engine import Engine
    from gptwright.tokens.tokenizer import Tokenizer

Run = Callable[[Path, str], tuple[dict[str, Any], str]]


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, what was measured, and why, in words."""

    right: bool
    answer: float
    measured: float
    text: str


def judge(answer: float, measured: float, why: str, *, absolute: float = 0.0, relative: float = 0.0) -> Verdict:
    """Compare an answer with what was measured.

    Args:
        answer: the learner's.
        measured: from the tensors.
        why: an explanation, shown in both cases.
        absolute: largest distance that still counts as right.
        relative: the same as a share of the measured value.
    """
    right = math.isfinite(answer) and abs(answer - measured) <= absolute + relative * abs(measured)
    word = "Right" if right else "Not quite"
    return Verdict(right, answer, measured, f"{word}: measured {measured:.4g}, you said {answer:.4g}. {why}")


def open_engine(model_dir: Path) -> "Engine":
    """The model in fp32 on the CPU, so that what a lesson shows does not depend on the machine's fast arithmetic."""
    import torch

    from gptwright.infer.engine import Engine

    return Engine.load(model_dir, torch.float32, "cpu")


@dataclass(frozen=True)
class Framed:
    """Token ids of a sentence with what stands before it; the sentence is ``ids[start:]``."""

    ids: list[int]
    start: int


def frame(tokenizer: "Tokenizer", text: str, limit: int, opening: str | None = None) -> Framed:
    """A sentence as a turn of a chat, as the model met it in training; without a chat template, as the beginning of a document.

    Args:
        tokenizer: the model's own.
        text: the sentence.
        limit: the model's context. Tokens.
        opening: what the user said; then the sentence is the assistant's answer, else it is the user's turn.

    Raises:
        UserError: nothing is there, or it does not fit into the context.
    """
    text = text.strip()
    content = tokenizer.encode(text)
    if not content:
        raise UserError("the sentence is empty", fix="Give some words with --text")
    before = [tokenizer.eos_id]
    if tokenizer.template is not None or tokenizer.im_start_id is not None:
        turns = [{"role": "user", "content": text}]
        if opening is not None:
            turns = [{"role": "user", "content": opening}, {"role": "assistant", "content": text}]
        whole = tokenizer.render(turns).ids
        # The last place, as the opening may say the same. A foreign template may rewrite the text; then the plain form is honest.
        spots = (i for i in range(len(whole) - 1, 0, -1) if whole[i : i + len(content)] == content)
        spot = next(spots, None)
        before = whole[:spot] if spot is not None else before
    if len(before) + len(content) > limit:
        raise UserError(
            f"the sentence has {len(content):,} tokens, the model reads {limit - len(before):,}",
            fix="Give a shorter one",
        )
    return Framed([*before, *content], len(before))


def visible(tokenizer: "Tokenizer", token: int) -> str:
    """A token for people: a space as ``·``, a line break as ``↵``, part of a character as hex."""
    if token in tokenizer.control_ids:
        return tokenizer.token_name(token)
    raw = tokenizer.token_bytes(token)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"<{raw.hex(' ').upper()}>"
    return "".join({" ": "·", "\n": "↵", "\t": "⇥", "\r": "↵"}.get(c, c if c.isprintable() else "?") for c in text)


def bar(value: float, full: float, width: int = 24) -> str:
    """A horizontal bar; ``full`` is as long as ``width`` characters."""
    eighths = round(8 * width * min(max(value / full, 0.0), 1.0)) if full > 0 else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")


def clip(text: str, width: int) -> str:
    """A text cut and padded to a width."""
    return (text if len(text) <= width else text[: width - 1] + "…").ljust(width)


def script(run: Run, check: Callable[[float, Path, str], Verdict], text: str) -> int:
    """``python -m gptwright.studio.lessons.NAME MODEL_DIR``: show the lesson, then take an answer. Returns the exit code."""
    parser = argparse.ArgumentParser(description="A lesson on your own model.")
    parser.add_argument("model_dir", type=Path, help="model directory, such as work/models/NAME")
    parser.add_argument("--text", default=text, help="the sentence to look at")
    parser.add_argument("--answer", type=float, help="check this answer instead of showing the lesson")
    parser.add_argument("--json", action="store_true", help="what was computed, machine-readable")
    options = parser.parse_args()
    try:
        if options.answer is None:
            data, shown = run(options.model_dir, options.text)
            print(json.dumps(data, ensure_ascii=False, indent=2) if options.json else shown)
            if options.json or not sys.stdin.isatty():
                return 0
            said = input("\nYour answer (Enter skips): ").strip()
            if not said:
                return 0
            try:
                options.answer = float(said)
            except ValueError:
                raise UserError(f"{said!r} is not a number", fix="Type a number such as 2.5") from None
        verdict = check(options.answer, options.model_dir, options.text)
        print(json.dumps(vars(verdict), ensure_ascii=False, indent=2) if options.json else verdict.text)
        return 0 if verdict.right else 3
    except GptwrightError as error:
        print(f"gptwright: {error}", file=sys.stderr)
        return error.exit_code
    except (EOFError, KeyboardInterrupt):
        return 130
