"""Judgements of answers as training data: pairs of a better and a worse answer, and answers that are good or bad.

Only what people agreed to be kept for training leaves the store. The shapes are those that ``tokens.preferences`` reads.
"""

from collections.abc import Iterator
from typing import Any, Literal

import sqlalchemy as sa

from gptwright.core.control import ControlStore, Feedback

Shape = Literal["pairs", "judged"]


def rows(control: ControlStore, shape: Shape) -> Iterator[dict[str, Any]]:
    """Rows for a file of preferences.

    Args:
        control: where judgements are kept.
        shape: ``pairs`` for DPO and IPO: ``{"prompt", "chosen", "rejected"}``, of corrections and votes, and of thumbs where one question
            has a good and a bad answer; ``judged`` for KTO: ``{"prompt", "completion", "label"}``, of thumbs, corrections and votes.
    """
    with control.session() as session:
        found = session.scalars(sa.select(Feedback).where(Feedback.consent).order_by(Feedback.id)).all()
    thumbs: dict[str, tuple[list[Any], list[Any], list[Any]]] = {}
    for row in found:
        if row.kind == "thumb" and isinstance(row.value.get("up"), bool) and _answered(row.messages):
            prompt, answer = row.messages[:-1], row.messages[-1:]
            if shape == "judged":
                yield {"prompt": prompt, "completion": answer, "label": row.value["up"]}
            else:
                good, bad = thumbs.setdefault(repr(prompt), (prompt, [], []))[1:]
                (good if row.value["up"] else bad).append(answer)
        elif (pair := _pair(row)) is not None:
            yield from _shaped(pair, shape)
    for prompt, good, bad in thumbs.values():
        for chosen, rejected in zip(good, bad, strict=False):
            if chosen != rejected:
                yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _pair(row: Feedback) -> dict[str, Any] | None:
    """A correction or a vote as a pair; None for what is neither, or lacks a part."""
    if row.kind == "edit" and _answered(row.messages):
        prompt, chosen, rejected = row.messages[:-1], row.value.get("text"), row.messages[-1]["content"]
    elif row.kind == "vote":
        prompt, chosen, rejected = row.messages, row.value.get("chosen"), row.value.get("rejected")
    else:
        return None
    usable = all(isinstance(text, str) and text.strip() for text in (chosen, rejected)) and chosen != rejected
    if not usable or not prompt or prompt[-1].get("role") != "user":
        return None
    return {"prompt": prompt, "chosen": _said(str(chosen)), "rejected": _said(str(rejected))}


def _shaped(pair: dict[str, Any], shape: Shape) -> Iterator[dict[str, Any]]:
    if shape == "pairs":
        yield pair
    else:
        yield {"prompt": pair["prompt"], "completion": pair["chosen"], "label": True}
        yield {"prompt": pair["prompt"], "completion": pair["rejected"], "label": False}


def _answered(messages: list[Any]) -> bool:
    """Whether a conversation ends with an answer to a question."""
    return len(messages) >= 2 and messages[-1].get("role") == "assistant" and messages[-2].get("role") == "user"


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
