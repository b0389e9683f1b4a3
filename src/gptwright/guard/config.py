"""What the guard may do: switches and limits of the ``[guard]`` section."""

from pydantic import Field

from gptwright.core.config import Config


class GuardConfig(Config):
    """``[guard]``: what may go in and out of a served model."""

    enabled: bool = Field(
        default=True, description="Whether the guard works at all. Limits stay in force even without it."
    )
    mask_prompts: bool = Field(
        default=True,
        description="Replace personal data (e-mail addresses, phone numbers, ...) in prompts before they are kept.",
    )
    mask_answers: bool = Field(
        default=True, description="Replace personal data in answers before they leave the server."
    )
    neutralise_markers: bool = Field(
        default=True, description="Defuse forged chat-template markers such as <|im_start|> in text that a person sent."
    )
    strip_invisible: bool = Field(
        default=True,
        description="Remove zero-width, bidirectional-control and tag characters from text that a person sent.",
    )
    watermark: bool = Field(
        default=True,
        description="Mark sampled answers so that gptwright detect and /v1/detect find them again. No word gets likelier; greedy answers "
        "cannot be marked. The key is made once, in state/watermark.key.",
    )
    max_message_chars: int = Field(default=100_000, gt=0, description="Longest accepted message. Characters.")
    max_messages: int = Field(default=200, gt=0, description="Most messages in one conversation. Messages.")
    max_total_chars: int = Field(default=400_000, gt=0, description="Longest accepted conversation. Characters.")
