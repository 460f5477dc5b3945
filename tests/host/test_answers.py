"""What a server at a URL answers: scripted real servers, healthy, broken and hostile."""

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from vllm_doctor.client.session import MAXIMUM_BODY_BYTES
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import ServerAnswer, Unknown
from vllm_doctor.probes.servers import answers, probe_servers

MODELS = {"object": "list", "data": [{"id": "tiny", "object": "model", "max_model_len": 2048}]}

Script = dict[str, tuple[int, bytes]]

HEALTHY: Script = {
    "/health": (200, b""),
    "/version": (200, b'{"version":"0.32.0"}'),
    "/v1/models": (200, json.dumps(MODELS).encode()),
}


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    """A real HTTP server on a free port that answers as scripted, 404 for all else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = script.get(self.path, (404, b'{"detail":"Not Found"}'))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it overrides
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listening socket whose first connection is handed to `talk`."""

    def run(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_healthy_server(suffix: str) -> None:
    with serving(HEALTHY) as url:
        answer = answers.asking(url + suffix, 5).result()
    assert answer == ServerAnswer(
        url=url,
        health_status=200,
        version="0.32.0",
        models=("tiny",),
        max_model_len=2048,
        models_status=200,
        metrics=Unknown("GET /metrics: 404, nothing of vLLM in it"),
    )


def test_the_scheme_may_be_left_out() -> None:
    with serving(HEALTHY) as url:
        assert answers.asking(url.removeprefix("http://"), 5).result().health_status == 200


def test_a_key_is_asked_for() -> None:
    script = {**HEALTHY, "/v1/models": (401, b'{"error":"Unauthorized"}')}
    with serving(script) as url:
        answer = answers.asking(url, 5).result()
    assert (answer.models_status, answer.models) == (401, Unknown("/v1/models answered 401"))
    assert answer.failure is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": 3}',
        b'{"data": [{"id": 4}]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"data": [' * 9000,
    ],
)
def test_no_list_of_models(body: bytes) -> None:
    with serving({**HEALTHY, "/v1/models": (200, body), "/version": (200, body)}) as url:
        answer = answers.asking(url, 5).result()
    assert answer.models == Unknown("/v1/models answered no list of models")
    assert answer.version is None


def test_hostile_texts_are_cleaned() -> None:
    models = {"data": [{"id": "\x1b[2Jevil\nmodel hf_canarycanary0123"}, {"id": "x" * 100_000, "max_model_len": -5}]}
    version = {"version": "9" * 10_000 + "\x1b]0;title\x07"}
    script = {
        **HEALTHY,
        "/v1/models": (200, json.dumps(models).encode()),
        "/version": (200, json.dumps(version).encode()),
    }
    with serving(script) as url:
        answer = answers.asking(url, 5).result()
    text = msgspec.json.encode(answer).decode()
    assert "canary" not in text
    assert "\\u001b" not in text
    assert len(text) < 2000
    assert answer.max_model_len is None


def test_a_giant_body_is_cut() -> None:
    with serving({**HEALTHY, "/v1/models": (200, b" " * (MAXIMUM_BODY_BYTES * 8) + b"{}")}) as url:
        answer = answers.asking(url, 10).result()
    assert isinstance(answer.models, Unknown)


def test_many_models_are_bounded() -> None:
    models = {"data": [{"id": f"m{n}"} for n in range(5000)]}
    with serving({**HEALTHY, "/v1/models": (200, json.dumps(models).encode())}) as url:
        answer = answers.asking(url, 5).result()
    assert isinstance(answer.models, tuple) and len(answer.models) == answers.MAXIMUM_MODELS


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = answers.asking(f"http://127.0.0.1:{port}", 5).result()
    assert (answer.failure, answer.health_status) == ("refused", None)
    assert answer.problem


def test_a_server_that_says_nothing() -> None:
    started = time.monotonic()
    with talking(lambda connection: time.sleep(4)) as url:
        answer = answers.asking(url, 0.5).result()
        waited = time.monotonic() - started
    assert answer.failure == "timeout"
    assert waited < 4


def test_a_server_that_drips() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(80):
            connection.sendall(b"x")
            time.sleep(0.05)

    started = time.monotonic()
    with talking(drip) as url:
        answer = answers.asking(url, 0.4).result()
        waited = time.monotonic() - started
    assert answer.failure == "timeout"
    assert waited < 4


def test_something_that_is_no_http() -> None:
    def greet(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    with talking(greet) as url:
        assert answers.asking(url, 5).result().failure == "not-http"


def test_a_server_that_hangs_up() -> None:
    with talking(lambda connection: None) as url:
        assert answers.asking(url, 5).result().failure in ("not-http", "other")


def test_tls_to_a_server_without_it() -> None:
    with serving(HEALTHY) as url:
        assert answers.asking(url.replace("http:", "https:"), 5).result().failure == "tls"


def test_a_host_that_is_not_known() -> None:
    assert answers.asking("http://no-such-host.invalid:8000", 5).result().failure in ("name", "timeout")


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serving(HEALTHY) as url:
        assert answers.asking(url, 5).result().health_status == 200


@pytest.mark.parametrize(
    "url", ["", "ftp://h", "http://", "http://[", "http://h:99999", "file:///etc/passwd", "http://h\x1b/"]
)
def test_no_url(url: str) -> None:
    with pytest.raises(DoctorError):
        probe_servers(url)


def test_a_password_in_the_url_is_in_no_fact() -> None:
    with serving(HEALTHY) as url:
        servers = probe_servers(url.replace("http://", "http://ann:letmein-5tz8@"))
    assert "letmein-5tz8" not in msgspec.json.encode(servers).decode()
    assert servers.answers[0].health_status == 200


METRICS = b"""\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} NaN
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total{engine="0",model_name="tiny"} 2.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{le="1.0"} 5.0
# TYPE python_gc_objects_collected counter
python_gc_objects_collected_total{generation="0"} 9.0
"""


def test_the_rows_of_metrics_that_the_rules_read() -> None:
    with serving(HEALTHY | {"/metrics": (200, METRICS)}) as url:
        answer = answers.asking(url, 5).result()
    assert not isinstance(answer.metrics, Unknown)
    assert {(row.name, row.value) for row in answer.metrics} == {
        ("vllm:num_requests_waiting", 3.0),
        ("vllm:num_preemptions_total", 2.0),
    }
    assert answer.metrics[0].labels["model_name"] == "tiny"
