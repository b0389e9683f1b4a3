"""The web application: routes only. What they share is a ``Backend``; how answers are sent is in ``respond``."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.routing import Match

from gptwright import __version__
from gptwright.core.control import ControlStore
from gptwright.gateway.config import GatewayConfig
from gptwright.gateway.provider import Provider
from gptwright.guard.guard import Guard
from gptwright.guard.moderation import Moderator
from gptwright.infer.watermark import Watermark
from gptwright.serve import answers as shapes
from gptwright.serve import errors
from gptwright.serve.batches import workers
from gptwright.serve.chats import add_chats
from gptwright.serve.checks import add_checks
from gptwright.serve.config import ServeConfig
from gptwright.serve.edge import Edge
from gptwright.serve.errors import ApiError
from gptwright.serve.feedback import add_feedback
from gptwright.serve.files import add_files
from gptwright.serve.generate import Backend
from gptwright.serve.messages import add_messages
from gptwright.serve.metrics import Metrics
from gptwright.serve.protocols import ModelInfo, Models
from gptwright.serve.respond import Responder
from gptwright.serve.responses import add_responses
from gptwright.serve.schema import CompletionRequest
from gptwright.serve.tokens import add_tokens
from gptwright.serve.tracing import Tracer, exporting

_REMOTE_LIST_S = 60.0
_REMOTE_WAIT_S = 2.0
_THREADS = 64
STREAMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Whole, or in pieces."}
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": shapes.ErrorAnswer} for status in (400, 401, 403, 404, 413, 429, 500, 502, 503, 504)
}


def create_app(
    models: Models,
    *,
    config: ServeConfig | None = None,
    guard: Guard | None = None,
    providers: Mapping[str, Provider] | None = None,
    gateway: GatewayConfig | None = None,
    control: ControlStore | None = None,
    mount: Callable[[FastAPI], None] | None = None,
    tracer: Tracer | None = None,
    watermark: Watermark | None = None,
    moderator: Moderator | None = None,
) -> FastAPI:
    """Build the server.

    Args:
        models: what it answers with.
        config: the ``[serve]`` section.
        guard: what may go in and out.
        providers: upstreams by name, for ``provider:model``.
        gateway: the ``[gateway]`` section: which models step in for which.
        control: where keys, usage and feedback are kept; without it there are no keys and nothing is kept.
        mount: called at the end with the app, to add pages (``gptwright.studio.mount``).
        tracer: where traces go; None: as ``[serve] traces`` says.
        watermark: what ``/v1/detect`` looks for; the models' engines put it there.
        moderator: what ``/v1/moderations`` goes by; None: rules alone.

    Returns:
        The application; ``app.state.backend`` holds what its endpoints share.
    """
    config = config or ServeConfig()
    metrics = Metrics()
    tracer = tracer or (exporting() if config.traces else Tracer())
    backend = Backend(
        models,
        config,
        guard or Guard(),
        dict(providers or {}),
        control,
        metrics,
        gateway or GatewayConfig(),
        tracer=tracer,
        watermark=watermark,
        moderator=moderator or Moderator(),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Python's own limit is a handful on a small machine: so many requests that wait for a database would stop all others.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "gptwright-work"))
        async with workers(app, backend):
            yield
            await backend.stop()
        tracer.close()

    app = FastAPI(
        title="gptwright",
        version=__version__,
        summary="Your own GPT behind OpenAI's protocol.",
        docs_url=None,  # both pages load their scripts from a CDN
        redoc_url=None,
        lifespan=lifespan,
        responses=_ERRORS,
    )
    app.state.backend = backend
    errors.install(app, lambda code: metrics.errors.labels(code).inc())
    app.add_middleware(Edge, backend=backend)
    for add in (
        _add_text,
        _add_models,
        add_tokens,
        add_responses,
        add_messages,
        add_files,
        add_feedback,
        add_checks,
        _add_care,
    ):
        add(app, backend)
    app.openapi = _schema(app)  # type: ignore[method-assign]
    if mount is not None:
        mount(app)
    return app


def _add_text(app: FastAPI, backend: Backend) -> None:
    add_chats(app, backend, STREAMS)

    @app.post("/v1/completions", response_model=shapes.TextCompletion, responses=STREAMS)
    async def completion(body: CompletionRequest, request: Request) -> Response:
        answer = await backend.completion(body, request)
        logprobs, echo = body.logprobs is not None, bool(body.echo)
        responder = Responder(backend, answer, "text", logprobs, echo=echo, n=body.n or 1)
        return await (responder.streamed(usage=body.wants_usage) if body.stream else responder.whole())


def _add_models(app: FastAPI, backend: Backend) -> None:
    remote: dict[str, tuple[float, list[str]]] = {}

    async def of_provider(provider: Provider) -> list[ModelInfo]:
        asked, names = remote.get(provider.name, (-_REMOTE_LIST_S, []))
        if time.monotonic() - asked >= _REMOTE_LIST_S:
            try:
                names = await asyncio.wait_for(provider.models_async(_REMOTE_WAIT_S), _REMOTE_WAIT_S)
            except Exception:  # a provider that is down must not take our own models from the list
                names = []
            remote[provider.name] = (time.monotonic(), names)
        return [ModelInfo(f"{provider.name}:{name}", 0, provider.name) for name in names]

    async def all_models() -> list[ModelInfo]:
        own = await asyncio.to_thread(backend.models.list)
        others = await asyncio.gather(*(of_provider(provider) for provider in backend.providers.values()))
        routes = [ModelInfo(name, 0, "gateway") for name in backend.gateway.routes]
        taken = set(backend.gateway.routes)
        return [*(m for m in own if m.id not in taken), *routes, *(model for group in others for model in group)]

    def shape(model: ModelInfo) -> shapes.Model:
        root = model.root or model.id
        return shapes.Model(id=model.id, created=model.created, owned_by=model.owned_by, root=root, parent=model.parent)

    @app.get("/v1/models")
    async def list_models() -> shapes.ModelList:
        return shapes.ModelList(data=[shape(model) for model in await all_models()])

    @app.get("/v1/models/{model_id:path}")
    async def get_model(model_id: str) -> shapes.Model:
        for model in await all_models():
            if model.id == model_id:
                return shape(model)
        raise ApiError(404, f"There is no model {model_id}.", param="model", code="model_not_found")


def _add_care(app: FastAPI, backend: Backend) -> None:
    @app.get("/health")
    async def health() -> shapes.State:
        return shapes.State(status="ok")

    @app.get("/ready")
    async def ready() -> shapes.State:
        if backend.draining:
            raise ApiError(503, "The server is stopping.", code="stopping")
        if not backend.providers and not await asyncio.to_thread(backend.models.list):
            raise ApiError(503, "There is no model yet. Run: gptwright run.", code="no_model")
        return shapes.State(status="ready")

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(backend.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"], include_in_schema=False)
    async def unknown(path: str, request: Request) -> Response:
        """Pages may be mounted at the root, and what is unknown here must not get a page."""
        partial = [route.matches(request.scope)[0] is Match.PARTIAL for route in app.router.routes]
        if any(partial):
            raise ApiError(405, f"{request.method} is not for /v1/{path}.")
        raise ApiError(404, f"There is no endpoint /v1/{path}. See /openapi.json.")


def _schema(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The served schema, without the 422 that FastAPI documents everywhere: our bad requests are 400, as OpenAI's are."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        return schema

    return openapi
