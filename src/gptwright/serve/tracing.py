"""OpenTelemetry traces, an extra: a span for each answer, and in it the time it waited, read its prompt and was written.

Spans are made when an answer is over, from times that are measured anyway; they hold counts and ids, never text. Attribute names are
those of OpenTelemetry's conventions for generative models (opentelemetry.io, "GenAI spans").
"""

import re
import time
from collections.abc import Sequence
from typing import Any

from gptwright.core.errors import require
from gptwright.serve.caller import Caller
from gptwright.serve.flow import Flow

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Tracer:
    """Makes spans, or does nothing.

    Args:
        provider: an OpenTelemetry tracer provider; None: nothing is traced.
    """

    def __init__(self, provider: Any = None) -> None:
        self._tracer: Any = provider.get_tracer("gptwright") if provider is not None else None
        self._provider = provider

    @property
    def on(self) -> bool:
        """Whether anything is traced."""
        return self._tracer is not None

    def answer(
        self, caller: Caller, model: str, flow: Flow, begun: Sequence[float | None], prompt: int, completion: int
    ) -> None:
        """The spans of one answer.

        Args:
            caller: who asked.
            model: the label of the model.
            flow: with its times.
            begun: when the engine began with each choice, ``time.monotonic()``; None where unknown.
            prompt: tokens of the prompt.
            completion: tokens generated.
        """
        if self._tracer is None:
            return
        trace = _api()
        now = time.monotonic()
        epoch = time.time_ns() - int(now * 1e9)

        def at(moment: float) -> int:
            return epoch + int(moment * 1e9)

        span = self._tracer.start_span(
            f"chat {model}",
            context=_parent(caller.trace),
            kind=trace.SpanKind.SERVER,
            start_time=at(flow.started),
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "gptwright",
                "gen_ai.request.model": model,
                "gen_ai.usage.input_tokens": prompt,
                "gen_ai.usage.output_tokens": completion,
                "gptwright.request_id": caller.request_id,
            },
        )
        inside = trace.set_span_in_context(span)
        known = [moment for moment in begun if moment is not None]
        first = flow.first_at
        marks = [("queue", flow.started, min(known) if known else None)]
        marks += [("prefill", min(known) if known else flow.started, first), ("decode", first or now, flow.last_at)]
        for name, start, end in marks:
            if end is not None and end >= start:
                self._tracer.start_span(name, context=inside, start_time=at(start)).end(at(end))
        if flow.cancelled:
            span.set_status(trace.StatusCode.ERROR, flow.cancelled)
        span.end(at(now))

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None and hasattr(self._provider, "shutdown"):
            self._provider.shutdown()


def exporting() -> Tracer:
    """A tracer that sends to where OpenTelemetry's own environment variables say (OTEL_EXPORTER_OTLP_ENDPOINT and others).

    Raises:
        UserError: the extra otel is not installed.
    """
    sdk: Any = require("opentelemetry.sdk.trace", "otel")
    export: Any = require("opentelemetry.sdk.trace.export", "otel")
    otlp: Any = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otel")
    resource: Any = require("opentelemetry.sdk.resources", "otel")
    provider = sdk.TracerProvider(resource=resource.Resource.create({"service.name": "gptwright"}))
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    return Tracer(provider)


def _api() -> Any:
    """OpenTelemetry's own interface, which is only there with the extra."""
    return require("opentelemetry.trace", "otel")


def _parent(trace_parent: str | None) -> Any:
    """The caller's span as a context; None when it sent none."""
    found = _PARENT.fullmatch(trace_parent or "")
    if found is None:
        return None
    trace = _api()
    identity = trace.SpanContext(
        int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=trace.TraceFlags(int(found[3], 16))
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(identity))
