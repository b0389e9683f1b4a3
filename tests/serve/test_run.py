"""The server as a process: draining, TLS, its log. And what it counts."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptwright.core.control import ControlStore
from gptwright.core.errors import UserError
from gptwright.serve.config import ServeConfig
from gptwright.serve.tracing import Tracer

CHAT = "/v1/chat/completions"
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send to a child")


def body(text: str, **extra: Any) -> dict[str, Any]:
    return {"model": "production", "messages": [{"role": "user", "content": text}], **extra}


@contextmanager
def process(*options: str, **config: Any) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The fake server as a process of its own."""
    script = Path(__file__).with_name("fakes.py")
    command = [sys.executable, str(script), *options, "--config", json.dumps(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), server
        finally:
            if server.poll() is None:
                server.kill()


@posix
@pytest.mark.slow
def test_server_when_told_to_stop_then_what_runs_is_finished_and_the_rest_gets_503() -> None:
    with process("--delay", "0.02") as (url, server):
        assert server.stderr is not None
        question = "x" * 100
        with httpx.stream("POST", url + CHAT, json=body(question, stream=True)) as running:
            lines = running.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            end = time.monotonic() + 10
            while httpx.get(url + "/ready").status_code == 200 and time.monotonic() < end:
                time.sleep(0.01)
            for path, sent in ((CHAT, body("hello")), ("/v1/embeddings", {"model": "production", "input": "x"})):
                refused = httpx.post(url + path, json=sent)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
                assert refused.headers["retry-after"] == "5"
            assert httpx.get(url + "/health").status_code == 200
            assert httpx.get(url + "/metrics").status_code == 200
            rest = list(lines)
        pieces = [json.loads(line[6:])["choices"][0]["delta"] for line in rest if line.startswith("data: {")]
        assert "".join(piece.get("content", "") for piece in pieces) == f"You said: {question}"
        assert server.wait(30) == 0
        assert "stopping: 1 answers are running" in server.stderr.read()


@posix
@pytest.mark.slow
def test_server_when_an_answer_outlasts_the_patience_then_it_ends_all_the_same() -> None:
    with process(drain_timeout=0.5) as (url, server):
        with httpx.stream("POST", url + CHAT, json=body("slow", stream=True, max_tokens=4000)) as running:
            next(running.iter_lines())
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert time.monotonic() - began < 20  # the answer takes 40 s


@posix
@pytest.mark.slow
@pytest.mark.parametrize("log_text", [False, True])
def test_log_when_it_is_json_then_every_line_is_an_object_and_text_is_in_it_only_if_asked_for(log_text: bool) -> None:
    with process(log_format="json", log_text=log_text) as (url, server):
        assert server.stderr is not None
        answer = httpx.post(url + CHAT, json=body("I am bob@example.org, blue whale"))
        httpx.post(url + CHAT, json=body("blue whale", n=0))
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        rows = [json.loads(line) for line in server.stderr.read().splitlines()]
    answers = [row for row in rows if row["event"] == "answer"]
    requests = [row for row in rows if row["event"] == "request"]
    assert [(row["route"], row["status"]) for row in requests] == [(CHAT, 200), (CHAT, 400)]
    assert answers[0]["request_id"] == requests[0]["request_id"] == answer.headers["x-request-id"]
    assert answers[0]["completion_tokens"] == answer.json()["usage"]["completion_tokens"]
    told = json.dumps(rows)
    assert "bob@example.org" not in told
    assert ("blue whale" in told) == log_text
    assert ("[EMAIL]" in told) == log_text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    try:
        subprocess.run([*made, "-keyout", str(key), "-out", str(cert), *subject], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl is missing: apt-get install openssl")
    return cert, key


@posix
@pytest.mark.slow
def test_server_when_it_has_a_certificate_then_it_speaks_https_only(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with process(tls_cert=str(cert), tls_key=str(key)) as (url, server):
        assert url.startswith("https://")
        answer = httpx.post(url + CHAT, json=body("hello"), verify=ssl.create_default_context(cafile=str(cert)))
        assert answer.json()["choices"][0]["message"]["content"] == "You said: hello"
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/health").raise_for_status()
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def test_tls_when_files_are_wrong_then_it_says_which(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    from gptwright.serve.run import _check_tls

    cert, key = certificate
    (tmp_path / "bad.pem").write_text("nonsense")
    for pair in ((cert, tmp_path / "none.pem"), (tmp_path / "bad.pem", key), (key, cert)):
        with pytest.raises(UserError, match=r"\[serve\] tls_cert"):
            _check_tls(ServeConfig(tls_cert=str(pair[0]), tls_key=str(pair[1])))
    with pytest.raises(ValueError, match="belong together"):
        ServeConfig(tls_cert=str(cert))


def value(text: str, name: str, *labels: str) -> float:
    """A sample of Prometheus' text format."""
    rows = [row for row in text.splitlines() if row.startswith(name) and all(label in row for label in labels)]
    assert len(rows) == 1, (name, labels, rows)
    return float(rows[0].rsplit(" ", 1)[1])


def test_metrics_when_requests_were_answered_then_they_count_under_vllms_names(stored: Any) -> None:
    url, app = stored()
    model = 'model_name="demo-finetune-0123456789"'
    app.state.backend.models.fake.load_now = (3, 2)
    app.state.backend.models.fake.cache_usage = 0.25
    answer = httpx.post(url + CHAT, json=body("hello")).json()
    httpx.post(url + CHAT, json=body("hello", max_tokens=3))
    httpx.post(url + CHAT, json=body("hello", n=0))
    text = httpx.get(url + "/metrics").text
    assert value(text, "vllm:prompt_tokens_total", model) == 2 * answer["usage"]["prompt_tokens"]
    assert value(text, "vllm:generation_tokens_total", model) == answer["usage"]["completion_tokens"] + 3
    assert value(text, "vllm:request_success_total", model, 'finished_reason="stop"') == 1
    assert value(text, "vllm:request_success_total", model, 'finished_reason="length"') == 1
    assert value(text, "vllm:num_requests_running", model) == 3
    assert value(text, "vllm:num_requests_waiting", model) == 2
    assert value(text, "vllm:kv_cache_usage_perc", model) == 0.25
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_time_per_output_token_seconds"):
        assert value(text, f"vllm:{name}_count", model) == 2
    assert value(text, "vllm:inter_token_latency_seconds_count", model) == answer["usage"]["completion_tokens"] - 1 + 2
    assert value(text, "gptwright_errors_total", 'code="invalid_value"') == 1


def test_metrics_when_the_database_is_away_then_answers_still_come(
    start: Any, control: ControlStore, caplog: pytest.LogCaptureFixture
) -> None:
    url, _ = start(control=control)
    control.engine.dispose()
    whole = control.session

    def away() -> Any:
        import sqlalchemy as sa

        raise sa.exc.OperationalError("SELECT", {}, Exception("the server closed the connection"))

    control.session = away  # type: ignore[method-assign]
    assert httpx.post(url + CHAT, json=body("hello")).status_code == 200
    refused = httpx.get(url + "/v1/responses/resp_x")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_away")
    locked, _ = start(control=control, config=ServeConfig(require_key=True))
    refused = httpx.post(locked + CHAT, json=body("hello"), headers={"Authorization": "Bearer gw-x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_away")
    assert refused.headers["retry-after"] == "5"
    control.session = whole  # type: ignore[method-assign]
    assert httpx.get(url + "/v1/responses/resp_x").status_code == 404
    assert httpx.post(url + "/v1/responses", json={"model": "production", "input": "x"}).status_code == 200


def test_traces_when_answers_are_given_then_a_span_holds_its_parts_and_no_text(stored: Any) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    url, _ = stored(tracer=Tracer(provider))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = httpx.post(url + CHAT, json=body("my secret"), headers={"traceparent": parent})
    spans = {span.name: span for span in exporter.get_finished_spans()}
    whole = spans["chat demo-finetune-0123456789"]
    assert f"{whole.context.trace_id:032x}" == parent[3:35]
    assert f"{whole.parent.span_id:016x}" == parent[36:52]
    assert {spans[name].parent.span_id for name in ("prefill", "decode")} == {whole.context.span_id}
    assert whole.attributes["gen_ai.usage.output_tokens"] == answer.json()["usage"]["completion_tokens"]
    assert whole.attributes["gptwright.request_id"] == answer.headers["x-request-id"]
    assert whole.start_time <= spans["prefill"].start_time <= spans["decode"].start_time <= whole.end_time
    assert "secret" not in "".join(span.to_json() for span in spans.values())


@pytest.mark.slow
def test_database_when_it_is_killed_and_comes_back_then_the_server_goes_on(start: Any, postgres: str) -> None:
    import sqlalchemy as sa

    admin = sa.create_engine(f"{postgres}/postgres", isolation_level="AUTOCOMMIT")

    def say(text: str) -> None:
        with admin.connect() as connection:
            connection.execute(sa.text(text))

    say("CREATE DATABASE killed TEMPLATE gptwright")
    store = ControlStore.open(f"{postgres}/killed")
    url, _ = start(control=store)
    asked = {"model": "production", "input": "hello"}
    first = httpx.post(url + "/v1/responses", json=asked).json()["id"]
    say("ALTER DATABASE killed ALLOW_CONNECTIONS false")
    say("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'killed'")
    assert httpx.get(f"{url}/v1/responses/{first}").status_code == 503
    assert httpx.post(url + CHAT, json=body("hello")).status_code == 200  # what needs no database is answered
    assert httpx.get(url + "/health").status_code == 200
    say("ALTER DATABASE killed ALLOW_CONNECTIONS true")
    assert httpx.get(f"{url}/v1/responses/{first}").status_code == 200
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": asked}
    sent = httpx.post(url + "/v1/files", data={"purpose": "batch"}, files={"file": ("a", json.dumps(line).encode())})
    batch = {"input_file_id": sent.json()["id"], "endpoint": "/v1/responses", "completion_window": "1h"}
    made = httpx.post(url + "/v1/batches", json=batch).json()["id"]
    end = time.monotonic() + 60
    while (state := httpx.get(f"{url}/v1/batches/{made}").json()["status"]) != "completed" and time.monotonic() < end:
        time.sleep(0.05)
    assert state == "completed"  # the worker outlived it too
    store.close()
    admin.dispose()
