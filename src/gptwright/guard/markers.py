"""Forged template markers: text of a person must not read as the frame of a conversation.

Our own engine already encodes text with special tokens switched off, so a forged marker never becomes a control token
there. Upstream providers and other people's templates promise no such thing; so the visible form is defused as well.
"""

import re

_MARKER = re.compile(
    r"<(?=[|｜][^<>\n]{1,80}[|｜]>)"  # <|im_start|>, <|eot_id|>, <｜User｜>: ChatML, Llama 3, DeepSeek, Phi
    r"|<(?=/?(?:start_of_turn|end_of_turn|start_of_role|end_of_role|start_header_id|bos|eos|tool_call|tool_response)>)"
    r"|<(?=</?SYS>>)"  # Llama 2
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\])",  # Llama 2, Mistral
    re.IGNORECASE,
)
# Plain <s> and </s> are left alone: they are strike-through in HTML, and no current template reads them from text.


def neutralise(text: str) -> str:
    """Defuse forged template markers with one space after the opening bracket: ``<|im_start|>`` -> ``< |im_start|>``.

    Args:
        text: what a person sent.

    Returns:
        The text without any marker that a chat template uses. Doing it again changes nothing.
    """
    return _MARKER.sub(lambda match: match[0] + " ", text)


def has_marker(text: str) -> bool:
    """Whether the text holds a template marker."""
    return _MARKER.search(text) is not None
