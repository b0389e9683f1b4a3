"""Bodies that are broken in every way, sent to every endpoint that takes one: never a 5xx, always OpenAI's shape of error."""

import gzip
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    -0.0,
    "",
    "x" * 3000,
    "\u0000",
    "🙂" * 9,
    [],
    [[]],
    [None],
    {},
    {"a": 1},
]
MANY = [
    b"",
    b" ",
    b"{",
    b"}",
    b"{}{}",
    b'{"model": "production",}',
    b"{'model': 'production'}",
    b'{"model": "production" "messages": []}',
    b'{"model": "\\x"}',
    b'{"model": "\\ud800"}',
    b'{"\\udfff": 1}',
    b'{"model": Infinity}',
    b'{"model": -NaN}',
    b'{"model": 1e999999}',
    b'{"model": ' + b"9" * 5000 + b"}",
    b'{"model": "production", "model": "production"}',
    b"\xef\xbb\xbf{}",  # a byte order mark
    "{}".encode("utf-16"),
    "{}".encode("utf-32"),
    b'{"model": "\xff\xfe"}',
    b'{"model": "\xed\xa0\x80"}',  # a surrogate as if it were UTF-8
    b'{"model": "\xc0\xaf"}',  # more bytes than needed
    b"\x00" * 100,
    b"<xml/>",
    b"model=production&prompt=x",
    gzip.compress(b'{"model": "production"}'),
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'"' + b"a" * 1_000_000,
    b"null",
    b"true",
    b"3",
    b'"text"',
    b"[]",
    b'[{"model": "production"}]',
    b"/* */ {}",
]


@pytest.fixture(scope="module")
def schema(shared: tuple[str, Any]) -> dict[str, Any]:
    return dict(httpx.get(shared[0] + "/openapi.json").json())


def posts(schema: dict[str, Any]) -> list[str]:
    """Paths that take a JSON body."""
    return [
        path.replace("{", "").replace("}", "")
        for path, operations in schema["paths"].items()
        if "application/json" in operations.get("post", {}).get("requestBody", {}).get("content", {})
    ]


def asks_for_nothing(content: bytes) -> bool:
    """An empty object or null in any encoding of JSON, or nothing at all."""
    try:
        return not content.strip() or json.loads(content) in ({}, None)
    except (ValueError, RecursionError):
        return False


def checked(response: httpx.Response, sent: Any) -> None:
    assert response.status_code < 500 or response.json()["error"]["code"] in ("model_not_ready", "no_control_store"), (
        response.request.url,
        str(sent)[:200],
        response.text,
    )
    if response.status_code >= 400:
        found = response.json()["error"]
        if "type" in response.json():  # Anthropic's shape
            assert found.keys() >= {"message", "type"}
        else:
            assert found.keys() == {"message", "type", "param", "code"}, (str(sent)[:100], found)
        assert len(response.text) < 20_000, "an error repeats what was sent"


def test_endpoints_when_the_body_is_no_json_then_each_refuses_it_in_its_shape(
    shared: tuple[str, Any], schema: dict[str, Any]
) -> None:
    paths = posts(schema)
    assert len(paths) >= 10
    with httpx.Client(base_url=shared[0], timeout=60) as client:
        for path in paths:
            for content in MANY:
                response = client.post(path, content=content, headers={"content-type": "application/json"})
                checked(response, content)
                if path != "/v1/conversations" or not asks_for_nothing(content):
                    assert response.status_code >= 400, (path, content[:100], response.text)


@pytest.mark.slow
def test_endpoints_when_any_field_has_any_value_then_none_fails(
    shared: tuple[str, Any], schema: dict[str, Any]
) -> None:
    good: dict[str, Any] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
        "/v1/completions": {"prompt": "hi"},
        "/v1/responses": {"input": "hi"},
        "/v1/embeddings": {"input": "hi"},
        "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
    }
    with httpx.Client(base_url=shared[0], timeout=60) as client:
        for path in posts(schema):
            content = schema["paths"].get(path, {}).get("post", {}).get("requestBody", {}).get("content", {})
            name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
            for field in schema["components"]["schemas"].get(name, {}).get("properties", {}):
                for value in VALUES:
                    sent = {"model": "production", **good.get(path, {}), field: value}
                    if field == "n" or sent.get("stream") is True:  # many answers, and answers in pieces: elsewhere
                        continue
                    checked(client.post(path, json=json.loads(json.dumps(sent))), sent)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../x\\r\\n"\r\n\r\nx\r\n--b--\r\n',
        ),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"A: b\r\n" * 5000 + b"\r\n\r\n--b--\r\n"),
        ("application/x-www-form-urlencoded", b"a=b"),
        ("application/octet-stream", b"\x00\xff"),
        ("nonsense", b"x"),
        ("", b"x"),
    ],
)
def test_upload_when_it_is_malformed_then_400(shared: tuple[str, Any], kind: str, content: bytes) -> None:
    response = httpx.post(shared[0] + "/v1/files", content=content, headers={"content-type": kind})
    assert 400 <= response.status_code < 500, response.text
    checked(response, content)


def test_body_when_it_ends_early_or_is_too_long_then_the_server_lives_on(shared: tuple[str, Any]) -> None:
    place = urlsplit(shared[0])
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n".encode()
    body = b'{"model": "production", "prompt": "hi"}'
    ways = [
        b"Content-Length: 1000\r\n\r\n" + body,  # and then nothing
        b"Content-Length: 5\r\n\r\n" + body,  # the rest is taken for the next request
        b"Content-Length: -1\r\n\r\n" + body,
        b"Content-Length: 39\r\nContent-Length: 5\r\n\r\n" + body,
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body,
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + body,
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 3000,
        b"Expect: 100-continue\r\nContent-Length: 39\r\n\r\n",
    ]
    for way in ways:
        with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=10) as connection:
            connection.sendall(head + way)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            answer = b""
            while data := connection.recv(65536):
                answer += data
        assert b"HTTP/1.1 5" not in answer, (way, answer)
    assert httpx.get(shared[0] + "/health").status_code == 200
