"""Chats as tokens: nobody forges a control token, and the Jinja template agrees with our renderer."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from gptwright.core.errors import UserError
from gptwright.tokens.template import CHAT_TEMPLATE, render_template
from gptwright.tokens.tokenizer import Tokenizer

from .strategies import chats, hostile_texts, plain_texts

TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi!"},
    {"role": "assistant", "content": "Hello there."},
    {"role": "user", "content": "Bye."},
    {"role": "assistant", "content": "See you."},
]


def learned(tokenizer: Tokenizer, messages: list[dict[str, Any]]) -> list[str]:
    """Runs of tokens that carry a loss, as text."""
    rendered = tokenizer.render(messages)
    runs: list[list[int]] = [[]]
    for token, bit in zip(rendered.ids, rendered.loss_mask, strict=True):
        if bit:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run, control=True) for run in runs if run]


def test_render_writes_chatml(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.render(TALK[:3], add_generation_prompt=True).ids, control=True) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\nHello there.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_loss_is_on_the_assistants_words_and_their_end_alone(tokenizer: Tokenizer) -> None:
    assert learned(tokenizer, TALK) == ["Hello there.<|im_end|>", "See you.<|im_end|>"]
    assert learned(tokenizer, [*TALK[:2], TALK[2] | {"weight": 0}, *TALK[3:]]) == ["See you.<|im_end|>"]


def test_generation_prompt_is_a_prefix_of_what_was_trained_on(tokenizer: Tokenizer) -> None:
    prompt, whole = tokenizer.render(TALK[:2], add_generation_prompt=True).ids, tokenizer.render(TALK[:3]).ids
    assert whole[: len(prompt)] == prompt


def test_tool_calls_and_results_use_their_control_tokens(tokenizer: Tokenizer) -> None:
    call = {"type": "function", "function": {"name": "sky", "arguments": {"city": "Ulm"}}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sun"},
    ]
    assert learned(tokenizer, messages) == ['<|tool_call|>{"name": "sky", "arguments": {"city": "Ulm"}}<|im_end|>']
    text = tokenizer.decode(tokenizer.render(messages).ids, control=True)
    assert text.endswith("<|im_start|>tool\n<|tool_result|>sun<|im_end|>\n")


@settings(max_examples=150, deadline=None)
@given(messages=chats(hostile_texts))
def test_control_ids_come_from_the_frame_alone_whatever_messages_say(
    tokenizer: Tokenizer, messages: list[dict[str, Any]]
) -> None:
    rendered = tokenizer.render(messages)
    assert len(rendered.ids) == len(rendered.loss_mask)
    blank = [
        {
            **m,
            "content": "",
            **({"tool_calls": [{"name": "", "arguments": {}} for _ in m["tool_calls"]]} if "tool_calls" in m else {}),
        }
        for m in messages
    ]
    frame = [token for token in tokenizer.render(blank).ids if token in tokenizer.control_ids]
    assert [token for token in rendered.ids if token in tokenizer.control_ids] == frame


@settings(max_examples=200, deadline=None)
@given(messages=chats(plain_texts))
def test_jinja_template_agrees_token_for_token_on_plain_text(
    tokenizer: Tokenizer, messages: list[dict[str, Any]]
) -> None:
    for prompt in (False, True):
        text = render_template(CHAT_TEMPLATE, messages, add_generation_prompt=prompt, special_tokens={})
        whole = tokenizer._hf
        whole.encode_special_tokens = False
        try:
            expected = whole.encode(text, add_special_tokens=False).ids
        finally:
            whole.encode_special_tokens = True
        assert tokenizer.render(messages, add_generation_prompt=prompt).ids == expected


@pytest.mark.slow
def test_transformers_template_agrees_token_for_token(tokenizer: Tokenizer, tokenizer_dir: Path) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer_dir)

    @settings(max_examples=150, deadline=None)
    @given(messages=chats(plain_texts))
    def agrees(messages: list[dict[str, Any]]) -> None:
        for prompt in (False, True):
            ids = loaded.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=False)
            assert ids == tokenizer.render(messages, add_generation_prompt=prompt).ids

    agrees()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "robot", "content": "x"}, "unknown role 'robot'"),
        ({"content": "x"}, "unknown role None"),
        ({"role": "user", "content": 3}, "neither text nor"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "neither text nor"),
    ],
)
def test_render_when_a_message_is_malformed_says_what_is_wrong(
    tokenizer: Tokenizer, message: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        tokenizer.render([message])


def test_content_parts_are_joined(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]
    assert tokenizer.render([{"role": "user", "content": parts}]) == tokenizer.render(
        [{"role": "user", "content": "Hi!"}]
    )


def test_render_batch_equals_rendering_one_by_one(tokenizer: Tokenizer) -> None:
    batch = [TALK, TALK[:2], TALK[1:]]
    assert tokenizer.render_batch(batch) == [tokenizer.render(messages) for messages in batch]


def test_template_in_the_sandbox_cannot_reach_python() -> None:
    with pytest.raises(UserError, match="refuses"):
        render_template("{{ ''.__class__.__mro__ }}", [], add_generation_prompt=False, special_tokens={})
    with pytest.raises(UserError, match="only users"):
        render_template("{{ raise_exception('only users') }}", [], add_generation_prompt=False, special_tokens={})
