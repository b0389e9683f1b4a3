"""The gate's conditions: the ``[release.gate]`` section."""

from pydantic import Field

from gptwright.core.config import Config


class GatePolicy(Config):
    """What a model must hold to be promoted."""

    max_bits_per_byte: float | None = Field(
        None, gt=0, description="Held-out bits per byte at most this. None: no limit."
    )
    margin: float = Field(
        0.02, ge=0, description="How much worse than production in bits per byte is still let through."
    )
    require_cards: bool = Field(True, description="Whether the model directory must hold a model card.")
