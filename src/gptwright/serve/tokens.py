"""Endpoints about tokens and vectors: ``/tokenize``, ``/detokenize``, ``/tokenizer_info``, ``/v1/embeddings``."""

import asyncio
import base64
import struct
from typing import Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel

from gptwright.serve import answers as shapes
from gptwright.serve.caller import Caller
from gptwright.serve.errors import ApiError
from gptwright.serve.generate import Backend, check_ids
from gptwright.serve.protocols import EngineLike
from gptwright.serve.schema_tokens import DetokenizeRequest, EmbeddingRequest, TokenizeRequest


class TokenizerInfo(BaseModel):
    """What evaluation tools ask before they use ``/tokenize``; names as in a Hugging Face ``tokenizer_config.json``."""

    model: str
    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None


class Embedding(BaseModel):
    """A text as a vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """Vectors, in the order of the inputs."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


def add_tokens(app: FastAPI, backend: Backend) -> None:
    """Add the endpoints."""

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> shapes.Tokens:
        model, engine = await backend.engine(body.model)
        tokenizer = engine.tokenizer

        def work() -> list[int]:
            if body.messages is not None:
                messages = backend.guard.check_prompt([message.plain for message in body.messages])
                return list(tokenizer.render(messages, add_generation_prompt=body.add_generation_prompt).ids)
            text = body.prompt or ""
            return engine.encode_prompt(text) if body.add_special_tokens else tokenizer.encode(text)

        ids = await asyncio.to_thread(work)
        texts = [tokenizer.token_bytes(i).decode("utf-8", "replace") for i in ids] if body.return_token_strs else None
        return shapes.Tokens(model=model, count=len(ids), max_model_len=engine.seq_len, tokens=ids, token_strs=texts)

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> shapes.Text:
        model, engine = await backend.engine(body.model)
        check_ids(body.tokens, engine.tokenizer.vocab_size, "tokens")
        return shapes.Text(model=model, prompt=await asyncio.to_thread(engine.tokenizer.decode, body.tokens))

    @app.get("/tokenizer_info")
    async def tokenizer_info(model: str | None = None) -> TokenizerInfo:
        name, engine = await backend.engine(model)
        return _info(name, engine)

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingRequest, request: Request) -> EmbeddingList:
        caller = Caller.of(request.scope)
        given = [
            backend.guard.check_text(text, param="input") if isinstance(text, str) else text for text in body.inputs
        ]
        model, engine = await backend.engine(body.model)
        rows = await asyncio.to_thread(_rows, engine, given)
        tokens = sum(map(len, rows))
        reservation = None if caller.background else caller.account.begin(tokens)
        read = 0
        try:
            data = []
            for index, row in enumerate(rows):
                if await request.is_disconnected():
                    break
                async with backend.reading:
                    vector = await asyncio.to_thread(engine.embed, row)
                data.append(Embedding(index=index, embedding=_coded(vector, body)))
                read += len(row)
        finally:
            if reservation is not None:
                reservation.settle(read)
            backend.metrics.prompt_tokens.labels(model).inc(read)
            backend.record(caller, model, read, 0, body.user)
        return EmbeddingList(model=model, data=data, usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens))


def _rows(engine: EngineLike, given: list[str | list[int]]) -> list[list[int]]:
    rows = []
    for index, text in enumerate(given):
        if isinstance(text, str):
            ids = engine.encode_prompt(text)
        else:
            ids = text
            check_ids(ids, engine.tokenizer.vocab_size, "input")
        if not ids:  # nothing but characters that the guard removes
            raise ApiError(400, "input: there is no text.", param="input", code="invalid_value")
        if len(ids) > engine.seq_len:
            where = f"input[{index}]" if len(given) > 1 else "input"
            raise ApiError(
                400,
                f"{where}: {len(ids)} tokens, the model's context holds {engine.seq_len}. Shorten it, or divide it.",
                param="input",
                code="context_length_exceeded",
            )
        rows.append(ids)
    return rows


def _coded(vector: list[float], body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _info(name: str, engine: EngineLike) -> TokenizerInfo:
    tokenizer: Any = engine.tokenizer
    token_name = getattr(tokenizer, "token_name", lambda _id: None)
    eos = getattr(tokenizer, "eos_id", None)
    bos = getattr(tokenizer, "bos_id", None)
    named = getattr(tokenizer, "special_tokens", {})
    end = token_name(eos) if eos is not None else None
    return TokenizerInfo(
        model=name,
        tokenizer_class="PreTrainedTokenizerFast",
        vocab_size=tokenizer.vocab_size,
        model_max_length=engine.seq_len,
        bos_token=token_name(bos) if bos is not None else named.get("bos_token"),
        eos_token=end,
        pad_token=named.get("pad_token", end),
        chat_template=getattr(tokenizer, "template", None),
    )
