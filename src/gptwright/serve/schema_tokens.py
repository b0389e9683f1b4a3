"""What requests about tokens, vectors and judgements may hold."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from gptwright.serve.body import Body, Label, Model
from gptwright.serve.schema import ChatMessage, TokenId

TheModel = Annotated[Model | None, Field(default=None, description="None: production, else the newest.")]


class TokenizeRequest(Body):
    """``POST /tokenize``: a text or a conversation to token ids."""

    model: TheModel
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=10_000)
    add_generation_prompt: bool = True
    add_special_tokens: bool = Field(default=False, description="Begin a text as a document begins for the model.")
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("missing", "give either prompt or messages", {"param": "prompt"})
        return self


class DetokenizeRequest(Body):
    """``POST /detokenize``: token ids to text."""

    model: TheModel
    tokens: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(max_length=1_000_000)


class EmbeddingRequest(Body):
    """``POST /v1/embeddings``."""

    unsupported = frozenset({"dimensions"})
    model: Model
    input: (
        Annotated[str, StringConstraints(min_length=1)]
        | Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1, max_length=2048)]
        | Annotated[list[TokenId], Field(min_length=1, max_length=1_000_000)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=2048)]
    ) = Field(description="A text, token ids, or a list of either.")
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="base64: little-endian float32, as the official client asks for."
    )
    user: Label | None = Field(default=None, description="For whom; a hash of it is kept with the usage.")

    @property
    def inputs(self) -> list[str | list[int]]:
        """The inputs, one or many."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [list(self.input)]
        return list(self.input)


FeedbackKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
FeedbackItem = StrictBool | StrictInt | StrictFloat | StrictStr


class FeedbackRequest(Body):
    """``POST /v1/feedback``: a judgement of an answer."""

    model: Model
    kind: Literal["thumb", "rating", "edit", "comment", "vote"]
    value: dict[FeedbackKey, FeedbackItem] = Field(
        max_length=20, description='Flat, such as {"up": true} or {"text": "a better answer"}; texts are masked.'
    )
    messages: list[ChatMessage] = Field(default_factory=list, max_length=10_000)
    consent: bool = Field(
        default=False, description="Whether the conversation may be kept. Without it only the judgement is."
    )
    user: Label | None = Field(
        default=None, description="Whose judgement it is; a hash of it is kept, by which it can be taken back."
    )
