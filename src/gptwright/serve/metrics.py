"""Numbers for Prometheus. Labels are route templates, statuses and model ids of our own; never text, never keys.

What vLLM measures too has vLLM's name and labels, so that dashboards made for it work; the rest begins with ``gptwright_``.

Source: names in vLLM's documentation, "Production Metrics" (docs.vllm.ai).
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1, 2.5, 10)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)

EngineNumbers = tuple[str, int, int, float | None]
"""Model, requests that run, requests that wait, share of the key-value cache in use (None: unknown)."""


class _Engines(Collector):
    """Gauges that are read from the engines when somebody looks."""

    def __init__(self, read: Callable[[], Iterable[EngineNumbers]]) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        running = GaugeMetricFamily("vllm:num_requests_running", "Requests in the batch.", labels=["model_name"])
        waiting = GaugeMetricFamily("vllm:num_requests_waiting", "Requests that wait.", labels=["model_name"])
        cache = GaugeMetricFamily("vllm:kv_cache_usage_perc", "Key-value cache in use; 1: all.", labels=["model_name"])
        for model, runs, waits, used in self._read():
            running.add_metric([model], runs)
            waiting.add_metric([model], waits)
            if used is not None:
                cache.add_metric([model], used)
        return [running, waiting, cache]


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by_model = ["model_name"]

        def counter(name: str, text: str, labels: list[str]) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

        self.requests = counter("gptwright_http_requests", "Requests answered.", ["method", "route", "status"])
        self.seconds = histogram(
            "gptwright_http_request_seconds", "Time until an answer was complete. Seconds.", ["route"], _SECONDS
        )
        self.errors = counter("gptwright_errors", "Requests refused or failed, by the error's code.", ["code"])
        self.answers = Gauge("gptwright_answers_running", "Answers being generated now.", registry=self.registry)
        self.cancelled = counter(
            "gptwright_cancelled", "Answers cancelled (client_gone, timeout, shutdown).", ["reason"]
        )
        self.masked = counter("gptwright_masked", "Personal data masked in answers, by kind.", ["kind"])
        self.batch_lines = counter("gptwright_batch_requests", "Requests of batches answered.", ["outcome"])
        self.prompt_tokens = counter("vllm:prompt_tokens", "Tokens of prompts.", by_model)
        self.generation_tokens = counter("vllm:generation_tokens", "Tokens generated.", by_model)
        self.finished = counter("vllm:request_success", "Answers that came to an end.", [*by_model, "finished_reason"])
        self.first_token = histogram(
            "vllm:time_to_first_token_seconds", "From a request to its first piece. Seconds.", by_model, _SECONDS
        )
        self.between_tokens = histogram(
            "vllm:inter_token_latency_seconds", "Between two pieces of an answer. Seconds.", by_model, _BETWEEN
        )
        self.per_token = histogram(
            "vllm:request_time_per_output_token_seconds",
            "Of an answer, after its first token. Seconds.",
            by_model,
            _BETWEEN,
        )
        self.whole = histogram(
            "vllm:e2e_request_latency_seconds", "From a request to the end of its answer. Seconds.", by_model, _SECONDS
        )
        self.queue = histogram(
            "vllm:request_queue_time_seconds",
            "From a request until the engine began with it. Seconds.",
            by_model,
            _SECONDS,
        )
        self.prompt_size = histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", by_model, _COUNTS)
        self.answer_size = histogram("vllm:request_generation_tokens", "Tokens of an answer.", by_model, _COUNTS)

    def watch_engines(self, read: Callable[[], Iterable[EngineNumbers]]) -> None:
        """Report gauges of engines, read when somebody looks."""
        self.registry.register(_Engines(read))

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
