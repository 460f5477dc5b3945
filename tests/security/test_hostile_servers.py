"""A server that --url names, or a hub, may answer anything, for ever: the doctor ends in time and stays small."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from vllm_doctor.facts import Unknown
from vllm_doctor.probes.model.hub import Access, ask_hub
from vllm_doctor.probes.servers import answers

OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"content-type: application/json\r\n"

# Slack for the two busy cores that tests may run on.
SLACK_SECONDS = 3.0


@contextmanager
def serving(behaviour: Callable[[socket.socket], None], requests: list[bytes] | None = None) -> Iterator[str]:
    """A server that does that to every connection, after the request has come, which is kept; the URL."""
    requests = [] if requests is None else requests
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()
    connections: list[socket.socket] = []

    def serve() -> None:
        while not ended.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            requests.append(connection.recv(65536))
            behaviour(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        # Without it a flood, and whoever was left reading it, would go on beside all further tests.
        for each in (listener, *connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        listener.close()


def drip(data: bytes, rest: bytes) -> Callable[[socket.socket], None]:
    """Send the beginning, then the rest again and again, ten times a second."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(data)
        while True:
            connection.sendall(rest)
            time.sleep(0.1)

    return behave


def flood(data: bytes, rest: bytes) -> Callable[[socket.socket], None]:
    """Send the beginning, then the rest as fast as it is taken."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(data)
        while True:
            connection.sendall(rest)

    return behave


def once(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def body(content: bytes, more: bytes = b"") -> bytes:
    return JSON + more + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(content) + content


BOMB = gzip.compress(gzip.compress(b"0" * 40_000_000))

HOSTILE = {
    "silence": lambda c: time.sleep(60),
    "a header that never ends": drip(OK + b"x-a: ", b"a"),
    "headers without end": drip(OK, b"x-a: b\r\n"),
    "a flood of headers": flood(OK, b"x-a: b\r\n" * 1000),
    "interim answers without end": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a flood of interim answers": flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "a body that drips": drip(JSON + b"\r\n", b" "),
    "a body without end": flood(JSON + b"\r\n", b" " * 65536),
    "chunks without end": flood(JSON + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 1000),
    "a redirect to a file": once(b"HTTP/1.1 302 F\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n"),
    "a redirect to itself": once(b"HTTP/1.1 302 F\r\nlocation: /health\r\ncontent-length: 0\r\n\r\n"),
    "no HTTP": once(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "noise": once(bytes(range(256)) * 100),
    "a status that is none": once(b"HTTP/1.1 99999 \xff\r\n\r\n"),
    "a compressed bomb": once(body(BOMB, b"content-encoding: gzip, gzip\r\n")),
    "deep JSON": once(body(b"[" * 500_000)),
    "a number without end": once(body(b'{"version": ' + b"9" * 500_000 + b"}")),
    "a length that lies": once(JSON + b"content-length: 99999999999\r\n\r\n{}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_server_costs_no_more_than_its_time(name: str) -> None:
    with serving(HOSTILE[name]) as url:
        started = time.monotonic()
        answer = answers.asking(url, 1.0).result()
        assert time.monotonic() - started < 1.0 + SLACK_SECONDS
    assert isinstance(answer.models, Unknown)
    assert answer.version is None
    assert "root:" not in repr(answer)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hub_costs_no_more_than_its_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_doctor.probes.model.hub.MAXIMUM_SECONDS", 1.0)
    with serving(HOSTILE[name]) as url:
        started = time.monotonic()
        answer = ask_hub("org/name", None, Access(endpoint=url, token=None, variables={}), ())
        assert time.monotonic() - started < 1.0 + SLACK_SECONDS
    assert sum(map(len, answer.contents.values())) < 20_000_000
    assert "root:" not in repr(answer.problem)


def test_what_a_server_says_is_text_of_bounded_length() -> None:
    models = {"data": [{"id": "\x1b]0;x\x07m" + "a" * 10_000, "max_model_len": 10**15}] * 1000, "version": "\x1b[31m9"}
    with serving(once(body(json.dumps(models).encode()[: 2**20]))) as url:
        answer = answers.asking(url, 5.0).result()
    assert "\x1b" not in repr(answer)
    assert isinstance(answer.models, Unknown) or all(len(m) <= 400 for m in answer.models)


def test_a_token_for_the_hub_goes_to_no_other_host() -> None:
    given: list[bytes] = []
    stolen: list[bytes] = []
    with serving(once(body(b"{}")), stolen) as other:
        elsewhere = other.replace("127.0.0.1", "localhost")
        moved = f"HTTP/1.1 302 F\r\nlocation: {elsewhere}/x\r\ncontent-length: 0\r\n\r\n".encode()
        with serving(once(moved), given) as url:
            ask_hub("org/name", None, Access(endpoint=url, token="hf_canary", variables={}), ())
    assert b"hf_canary" in b"".join(given)
    assert stolen
    assert b"hf_canary" not in b"".join(stolen)
