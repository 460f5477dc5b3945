"""Servers that mean harm: time and memory stay bounded, the key goes nowhere else, and the answer is a finding."""

import gzip
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client.scripted import Asked, Scripted, as_json, chat, dripping, response
from vllm_doctor.client import chatting, metrics, names, refusals
from vllm_doctor.client.replies import Reply, complaint
from vllm_doctor.client.session import MAXIMUM_BODY_BYTES, Session
from vllm_doctor.client.visit import Options
from vllm_doctor.client.walk import Connection, walk

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SECONDS = 1.0


def walked(handlers: dict[str, Any], key: str | None = None) -> tuple[Connection, float]:
    with Scripted(handlers) as server:
        started = time.monotonic()
        found = walk(server.base, Options(timeout_seconds=SECONDS, key=key))
        return found, time.monotonic() - started


def endless(_: Asked) -> Iterator[bytes]:
    yield HEAD + b"\r\n"
    while True:
        yield b"[" * 65536


HOSTILE: dict[str, Any] = {
    "a body without end": endless,
    "a drip of body": lambda _: dripping(HEAD + b"content-length: 100000\r\n\r\n", b" "),
    "a drip of headers": lambda _: dripping(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "a drip of a status line": lambda _: dripping(b"HTTP/1.1 2", b"0"),
    "huge JSON": lambda _: response(200, b'{"data": [' + b"{}," * 600_000 + b"{}]}"),
    "deep JSON": lambda _: response(200, b"[" * 900_000),
    "JSON of another shape": lambda _: as_json({"data": {"id": 1}}),
    "rows of other shapes": lambda _: as_json({"data": [1, None, {"id": 5}, {"id": ["x"]}]}),
    "another content type": lambda _: response(200, b"<html>" * 1000, "text/html"),
    "a compressed bomb": lambda _: response(200, gzip.compress(b" " * 50_000_000), content_encoding="gzip"),
    "invalid UTF-8": lambda _: response(200, b'{"data": [{"id": "\xff\xfe"}]}'),
    "no answer": lambda _: iter([b""]),
    "half an answer": lambda _: iter([HEAD + b"content-length: 50\r\n\r\n{"]),
    "no HTTP": lambda _: iter([b"\x00\x01\x02\x03\r\n\r\n"]),
    "a long header": lambda _: iter([HEAD + b"x: " + b"y" * 500_000 + b"\r\n\r\n"]),
    "terminal escapes": lambda _: response(400, b'{"error": {"message": "\\u001b[31mred\\u001b[0m"}}'),
}


@pytest.mark.parametrize("place", ["/health", "/v1/models", "/v1/chat/completions", "/metrics", "/openapi.json"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_time_and_memory_are_bounded(kind: str, place: str) -> None:
    tracemalloc.start()
    found, seconds = walked({place: HOSTILE[kind]})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A walk asks a hostile place a few times at most, each with its own limit.
    assert seconds < 8 * SECONDS
    assert peak < 40 * MAXIMUM_BODY_BYTES
    assert all("\x1b" not in step.detail for step in found.steps)
    if place in ("/v1/models", "/v1/chat/completions"):
        assert found.findings
        assert found.findings[0].fixes


def test_no_other_place_is_asked_where_an_answer_does_not_end() -> None:
    with Scripted({"*": HOSTILE["a drip of body"]}) as server:
        found = walk(server.base, Options(timeout_seconds=SECONDS))
        assert [asked.path for asked in server.asked] == ["/health", "/v1/models"]
    assert found.findings[0].title.endswith("does not end its answer as an API does")


def test_the_key_does_not_follow_a_redirect() -> None:
    with Scripted() as other:
        target = f"http://127.0.0.1:{other.port}/v1/models"
        redirect = {"/v1/models": lambda _: response(307, b"", location=target)}
        found, _ = walked(redirect, key="sk-secret-key-1")
        assert other.asked == []
    assert (found.findings[0].cause, found.findings[0].check) == ("endpoint-wrong", "path")


def test_a_redirect_within_the_host_names_the_right_address() -> None:
    found, _ = walked({"/v1/models": lambda a: response(307, b"", location="/api/v1/models")})
    fix = found.findings[0].fixes[0]
    assert fix.settings is not None
    assert fix.settings["Base URL"].endswith("/api/v1")


def test_a_server_that_echoes_the_key_does_not_get_it_printed() -> None:
    from vllm_doctor import redact

    redact.hide("the-very-secret")
    found, _ = walked(
        {"/v1/models": lambda a: as_json({"error": a.headers.get("authorization", "")}, 401)}, "the-very-secret"
    )
    assert "the-very-secret" not in str(found)


def test_the_session_asks_its_own_host_only() -> None:
    session = Session("http://127.0.0.1:1/v1", "key")
    reply = session.get("http://127.0.0.2:1/v1/models")
    session.close()
    assert (reply.status, reply.failure) == (None, "other")


def test_no_compressed_answer_is_asked_for() -> None:
    with Scripted() as server:
        walk(server.base, Options(timeout_seconds=SECONDS))
        assert {asked.headers["accept-encoding"] for asked in server.asked} == {"identity"}


def reply_of(body: bytes, status: int = 200) -> Reply:
    return Reply(method="GET", url="http://x", status=status, body=body)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=2000)
@given(st.binary(max_size=2000))
def test_any_bytes_are_read_without_an_exception(body: bytes) -> None:
    reply = reply_of(body)
    assert isinstance(complaint(reply).message, str)
    assert refusals.refusal(reply_of(body, 400)).cause
    assert names.served(reply) is None or isinstance(names.served(reply), tuple)
    assert metrics.read(reply) is None or metrics.read(reply)
    assert chatting.events(body).problem is None or not chatting.events(body).done


NAMES = [
    "data",
    "id",
    "error",
    "message",
    "detail",
    "param",
    "type",
    "choices",
    "delta",
    "usage",
    "loc",
    "msg",
    "object",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=2000)
@given(st.dictionaries(st.sampled_from(NAMES), json_values, max_size=5))
def test_any_json_is_read_without_an_exception(value: dict[str, Any]) -> None:
    import json

    reply = reply_of(json.dumps(value).encode())
    assert isinstance(complaint(reply).message, str)
    assert names.served(reply) is None or isinstance(names.served(reply), tuple)
    assert chatting.message_of(reply) is None or isinstance(chatting.message_of(reply), dict)
    assert chatting.prompt_tokens(reply) is None or isinstance(chatting.prompt_tokens(reply), int)


@pytest.mark.parametrize(
    "body", [b"data: " + b"[" * 100_000, b"data: {}\n\n" * 50_000, b"\n" * 1_000_000, b"data: [DONE]" * 100_000]
)
def test_a_stream_of_any_size_is_read_in_bounds(body: bytes) -> None:
    found = chatting.events(body)
    assert len(found.chunks) <= chatting.MAXIMUM_EVENTS


def test_a_stream_that_never_ends_is_left() -> None:
    def handler(asked: Asked) -> Any:
        if asked.json().get("stream"):
            return dripping(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", b'data: {"choices": []}\n\n')
        return chat()

    found, seconds = walked({"/v1/chat/completions": handler})
    assert (found.findings[0].cause, found.findings[0].check) == ("connection-timeout", "stream")
    assert seconds < 6 * SECONDS
