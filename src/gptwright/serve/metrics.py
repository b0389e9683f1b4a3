"""Numbers for Prometheus. Labels are route templates, statuses and model ids of our own; never text, never keys."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gptwright_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "gptwright_http_request_seconds",
            "Time until an answer was complete. Seconds.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.running = Gauge("gptwright_answers_running", "Answers being generated now.", registry=self.registry)
        self.tokens = Counter(
            "gptwright_tokens",
            "Tokens by model and kind (prompt, completion).",
            ["model", "kind"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "gptwright_first_token_seconds",
            "Time from a request to the first piece of its answer. Seconds.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.cancelled = Counter(
            "gptwright_cancelled",
            "Answers cancelled (client_gone, timeout, shutdown).",
            ["reason"],
            registry=self.registry,
        )
        self.masked = Counter(
            "gptwright_masked", "Personal data masked in answers, by kind.", ["kind"], registry=self.registry
        )

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
