"""Log probabilities of tokens in OpenAI's two shapes: of chats, and the older one of plain completions."""

from collections.abc import Sequence

from gptwright.infer.scoring import TokenScore
from gptwright.serve import answers as shapes
from gptwright.serve.flow import Step
from gptwright.serve.protocols import TokenizerLike

_LEAST = -9999.0
"""JSON has no infinity; this is what OpenAI's API sends for "very unlikely"."""


def chat_logprobs(tokenizer: TokenizerLike, steps: Sequence[Step]) -> shapes.Logprobs:
    """Of an answer's tokens; control tokens end an answer, they are no part of it."""
    return shapes.Logprobs(content=[_token(tokenizer, step) for step in steps if _has_text(tokenizer, step)])


def text_logprobs(
    tokenizer: TokenizerLike, prompt: Sequence[TokenScore], steps: Sequence[Step], offset: int, control: bool
) -> shapes.TextLogprobs:
    """Of a prompt's tokens (the first has none) and an answer's.

    Args:
        tokenizer: of the model.
        prompt: what was given; empty unless it is echoed.
        steps: what was generated.
        offset: characters before the first token.
        control: whether control tokens are listed too. With an echoed prompt they must be: evaluation tools count on one entry a token,
            the last of which is the one that was generated.
    """
    entries = [(score.token_id, score.logprob, score.top) for score in prompt]
    entries += [
        (step.token_id, step.logprob, tuple(step.top_logprobs))
        for step in steps
        if step.token_id is not None and (control or _has_text(tokenizer, step))
    ]
    found = shapes.TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for token_id, logprob, top in entries:
        name = text_name(tokenizer, token_id)
        found.tokens.append(name)
        found.token_logprobs.append(None if logprob is None else max(logprob, _LEAST))
        if logprob is None:
            found.top_logprobs.append(None)
        else:
            # The token itself is always among them, as OpenAI has it; of two ids with one name the likelier stands for it.
            likeliest: dict[str, float] = {}
            for other, value in (*top, (token_id, logprob)):
                likeliest.setdefault(text_name(tokenizer, other), max(value, _LEAST))
            found.top_logprobs.append(likeliest)
        found.text_offset.append(offset)
        offset += len(tokenizer.decode([token_id]))
    return found


def text_name(tokenizer: TokenizerLike, token_id: int) -> str:
    """A token as plain completions name it: its text; bytes that are no text by themselves spelled out; a control token by its name."""
    raw = tokenizer.token_bytes(token_id)
    if not raw:
        name = getattr(tokenizer, "token_name", None)
        return str(name(token_id)) if name is not None else f"<|{token_id}|>"
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _has_text(tokenizer: TokenizerLike, step: Step) -> bool:
    return step.token_id is not None and bool(tokenizer.token_bytes(step.token_id))


def _token(tokenizer: TokenizerLike, step: Step) -> shapes.TokenLogprob:
    assert step.token_id is not None
    assert step.logprob is not None
    top = [_top(tokenizer, token_id, logprob) for token_id, logprob in step.top_logprobs]
    chosen = _top(tokenizer, step.token_id, step.logprob)
    return shapes.TokenLogprob(token=chosen.token, logprob=chosen.logprob, bytes=chosen.bytes, top_logprobs=top)


def _top(tokenizer: TokenizerLike, token_id: int, logprob: float) -> shapes.TopLogprob:
    raw = tokenizer.token_bytes(token_id)
    return shapes.TopLogprob(token=raw.decode("utf-8", "replace"), logprob=max(logprob, _LEAST), bytes=list(raw))
