"""Endpoints about given texts: ``/v1/moderations`` (what is in it) and ``/v1/detect`` (was it ours)."""

import asyncio
import uuid
from typing import Annotated, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field, create_model

from gptwright.guard.moderation import Judgement
from gptwright.infer.watermark import FALSE_ALARMS
from gptwright.serve.body import Body
from gptwright.serve.errors import ApiError
from gptwright.serve.generate import Backend
from gptwright.serve.schema_tokens import TheModel

JUDGE = "gptwright-guard"
"""The one moderation model: this project's rules and its own classifiers."""

OPENAI_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm"),
    *("self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"),
)
"""Keys that OpenAI's shape requires. None of them is judged here."""


class TextPart(Body):
    """A text among several parts of one input."""

    type: Literal["text"]
    text: str


class ImagePart(BaseModel):
    """An image; refused by name."""

    type: Literal["image_url"]
    image_url: dict[str, str]


class ModerationRequest(Body):
    """``POST /v1/moderations``."""

    input: str | Annotated[list[str] | list[TextPart | ImagePart], Field(min_length=1, max_length=100)] = Field(
        description="A text, several texts with a result each, or the text parts of one input."
    )
    model: str | None = Field(default=None, min_length=1, max_length=300, description=f"{JUDGE}, or left out.")

    @property
    def texts(self) -> list[str]:
        """What is judged, each by itself; parts belong together.

        Raises:
            ApiError: 400, there is an image.
        """
        if isinstance(self.input, str):
            return [self.input]
        texts = [part for part in self.input if isinstance(part, str)]
        if texts:
            return texts
        parts = []
        for index, part in enumerate(self.input):
            if not isinstance(part, TextPart):
                where = f"input[{index}].type"
                raise ApiError(400, f"{where}: images are not judged here.", param=where, code="unsupported_parameter")
            parts.append(part.text)
        return ["\n".join(parts)]


def _all_keys(name: str, kind: type) -> type[BaseModel]:
    """An object with OpenAI's keys, all required; keys of our own come beside them."""
    fields = {
        f"c{index}": (kind, Field(alias=category, serialization_alias=category))
        for index, category in enumerate(OPENAI_CATEGORIES)
    }
    model: type[BaseModel] = create_model(name, __config__={"extra": "allow"}, **fields)  # type: ignore[call-overload]
    return model


Categories = _all_keys("ModerationCategories", bool)
Scores = _all_keys("ModerationScores", float)
InputTypes = _all_keys("ModerationInputTypes", list[Literal["text"]])


class ModerationResult(BaseModel):
    """What one input showed. ``judged`` names the categories that were really looked at; all others are false because nothing looked."""

    flagged: bool
    categories: Categories  # type: ignore[valid-type]
    category_scores: Scores  # type: ignore[valid-type]
    category_applied_input_types: InputTypes  # type: ignore[valid-type]
    judged: list[str]
    personal_data: dict[str, int]


class Moderation(BaseModel):
    """Results, in the order of the inputs."""

    id: str
    model: str
    results: list[ModerationResult]


class DetectRequest(Body):
    """``POST /v1/detect``."""

    input: str = Field(description="The text in question.")
    model: TheModel
    max_false_positive_rate: float = Field(
        default=FALSE_ALARMS,
        gt=0,
        le=0.5,
        description="Share of texts that were not marked by this server's key of which at most so many may be called marked.",
    )


class Detection(BaseModel):
    """Whether a text carries the watermark.

    ``p_value`` is the chance that a text without it shows as much; ``too_short``: not found, but too few tokens to say that it is not there.
    """

    object: Literal["detection"] = "detection"
    model: str
    verdict: Literal["marked", "not_found", "too_short"]
    p_value: float
    z: float
    tokens: int
    scored_tokens: int
    max_false_positive_rate: float


def add_checks(app: FastAPI, backend: Backend) -> None:
    """Add the endpoints."""

    @app.post("/v1/moderations", response_model=Moderation, response_model_by_alias=True)
    async def moderations(body: ModerationRequest) -> Moderation:
        if body.model not in (None, JUDGE):
            message = f"There is no moderation model {body.model}. There is: {JUDGE}."
            raise ApiError(404, message, param="model", code="model_not_found")
        texts = body.texts
        for index, text in enumerate(texts):
            backend.guard.check_text(text, param="input" if len(texts) == 1 else f"input[{index}]")  # its length
        results = []
        for text in texts:
            async with backend.reading:
                results.append(_result(await asyncio.to_thread(backend.moderator.judge, text)))
        return Moderation(id="modr-" + uuid.uuid4().hex, model=JUDGE, results=results)

    @app.post("/v1/detect")
    async def detect(body: DetectRequest) -> Detection:
        watermark = backend.watermark
        if watermark is None:
            raise ApiError(
                400,
                "This server marks nothing and never did: it has no watermark key ([guard] watermark).",
                code="no_watermark",
            )
        backend.guard.check_text(body.input, param="input")
        name, engine = await backend.engine(body.model)
        async with backend.reading:
            ids = await asyncio.to_thread(engine.tokenizer.encode, body.input)
            found = await asyncio.to_thread(watermark.detect, ids, body.max_false_positive_rate)
        return Detection(
            model=name,
            verdict=found.verdict,
            p_value=found.p_value,
            z=found.z,
            tokens=found.tokens,
            scored_tokens=found.scored,
            max_false_positive_rate=found.false_alarms,
        )


def _result(found: Judgement) -> ModerationResult:
    judged = list(found.scores)
    names = (*OPENAI_CATEGORIES, *judged)
    return ModerationResult.model_validate(
        {
            "flagged": bool(found.flagged),
            "categories": {name: name in found.flagged for name in names},
            "category_scores": {name: found.scores.get(name, 0.0) for name in names},
            # Of a category that nothing looked at, no input was considered.
            "category_applied_input_types": {name: ["text"] if name in found.scores else [] for name in names},
            "judged": judged,
            "personal_data": found.kinds,
        }
    )
