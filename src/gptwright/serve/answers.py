"""The shapes of answers, as the schema at ``/openapi.json`` shows them and as the official client reads them."""

from typing import Any, Literal

from pydantic import BaseModel


class Model(BaseModel):
    """A model. ``root`` is its full id, also where ``id`` is an alias; ``parent`` the base whose engine answers for an adapter."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    parent: str | None = None


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


class PromptDetails(BaseModel):
    """Of the tokens of a prompt."""

    cached_tokens: int


class TokenUsage(BaseModel):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails

    @classmethod
    def of(cls, prompt: int, completion: int, cached: int) -> "TokenUsage":
        """Counts and their sum."""
        details = PromptDetails(cached_tokens=cached)
        total = prompt + completion
        return cls(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, prompt_tokens_details=details
        )


class TopLogprob(BaseModel):
    """A token and its log probability (natural)."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """The chosen token, and the likeliest alternatives."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """Log probabilities of an answer's tokens. ``content`` is null where personal data was masked in the answer."""

    content: list[TokenLogprob] | None
    refusal: None = None


class CalledFunction(BaseModel):
    """A function that the model calls."""

    name: str
    arguments: str


class AnswerCall(BaseModel):
    """A tool call."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AnswerMessage(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[AnswerCall] | None = None


Finish = Literal["stop", "length", "tool_calls"]


class ChatChoice(BaseModel):
    """A choice of a chat completion."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    """A whole chat answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage


ASKED = (
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"),
    *("tools", "tool_choice", "response_format"),
)
"""What a stored chat completion tells of its request."""


class StoredCompletion(ChatCompletion):
    """A chat completion that was kept, with what was asked for; null is what the request did not name."""

    metadata: dict[str, str]
    request_id: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None


class ChatList(BaseModel):
    """Stored chat completions, a page of them. Where there is none, the ids are empty."""

    object: Literal["list"] = "list"
    data: list[StoredCompletion]
    first_id: str
    last_id: str
    has_more: bool


class KeptMessage(BaseModel):
    """A message that a stored chat completion answered. ``content`` is its whole text, ``content_parts`` the parts that it was sent in."""

    id: str
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None
    refusal: None = None
    content_parts: list[dict[str, Any]] | None = None
    tool_calls: list[AnswerCall] | None = None
    tool_call_id: str | None = None


class MessageList(BaseModel):
    """Messages, a page of them."""

    object: Literal["list"] = "list"
    data: list[KeptMessage]
    first_id: str
    last_id: str
    has_more: bool


class TextLogprobs(BaseModel):
    """Log probabilities in the older shape of plain completions."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(BaseModel):
    """A choice of a plain completion."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Finish


class TextCompletion(BaseModel):
    """A whole plain completion."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: TokenUsage


class Tokens(BaseModel):
    """A text as token ids."""

    model: str
    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None = None


class Text(BaseModel):
    """Token ids as a text."""

    model: str
    prompt: str


class FeedbackReceipt(BaseModel):
    """What was kept of a judgement."""

    id: int
    object: Literal["feedback"] = "feedback"
    messages_kept: int


class FeedbackTakenBack(BaseModel):
    """How many judgements are gone."""

    object: Literal["feedback.deleted"] = "feedback.deleted"
    deleted: int


class State(BaseModel):
    """Whether the server is there."""

    status: str


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """An error in OpenAI's shape."""

    error: ErrorDetail
