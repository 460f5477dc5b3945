"""TLS and proxies: what a client on this machine would go through, shown for what it is."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.scripted import Asked, Scripted, as_json, usual
from vllm_doctor.client.proxies import named, proxy_for
from vllm_doctor.client.visit import Options
from vllm_doctor.client.walk import walk

OPTIONS = Options(timeout_seconds=5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that nobody trusts, for localhost and 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[int]:
    """The port of a TLS front of a healthy scripted server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with Scripted() as inner, socket.create_server(("127.0.0.1", 0)) as front:

        def accept() -> None:
            while True:
                try:
                    plain, _ = front.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(plain,), daemon=True).start()

        def serve(plain: socket.socket) -> None:
            with plain:
                try:
                    with context.wrap_socket(plain, server_side=True) as wrapped:
                        inner._serve(wrapped)
                except (OSError, ValueError):
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield front.getsockname()[1]
        front.shutdown(socket.SHUT_RDWR)


def test_a_certificate_that_is_not_trusted(secure: int) -> None:
    found = walk(f"https://127.0.0.1:{secure}/v1", OPTIONS).findings
    assert [(f.cause, f.check) for f in found] == [("endpoint-wrong", "tls")]
    assert "certificate" in found[0].title


def test_a_trusted_certificate(secure: int, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    connection = walk(f"https://localhost:{secure}/v1", OPTIONS)
    assert connection.findings == ()
    assert "TLSv1" in next(step.detail for step in connection.steps if step.name == "tls")


def test_http_asked_of_a_tls_server(secure: int) -> None:
    found = walk(f"http://127.0.0.1:{secure}/v1", OPTIONS).findings
    assert [(f.cause, f.check) for f in found] == [("endpoint-wrong", "http")]
    assert found[0].fixes[0].settings == {"Base URL": f"https://127.0.0.1:{secure}/v1"}


def test_a_proxy_is_used_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(asked: Asked) -> bytes:
        assert asked.path.startswith("http://gpu.invalid:8000/")
        return usual(asked._replace(path=asked.path.removeprefix("http://gpu.invalid:8000")))

    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Scripted({"*": forward}) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{proxy.port}")
        connection = walk("http://gpu.invalid:8000/v1", OPTIONS)
    assert connection.findings == ()
    detail = connection.steps[0].detail
    assert f"through the proxy http://127.0.0.1:{proxy.port} (http_proxy)" in detail
    assert "secret" not in str(connection)


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    found = walk("http://gpu.invalid:8000/v1", OPTIONS).findings
    assert [(f.cause, f.check) for f in found] == [("connection-refused", "port")]
    assert "proxy" in found[0].title


def test_the_loopback_is_asked_past_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Scripted() as server:
        connection = walk(server.base, OPTIONS)
    assert connection.findings == ()
    assert "past the proxy of http_proxy" in connection.steps[0].detail


@pytest.mark.parametrize(
    ("exceptions", "proxied"),
    [
        ("", True), ("*", False), ("h.example.org", False), (".example.org", False), ("example.org", False),
        ("ample.org", True), ("h.example.org:8000", False), ("h.example.org:9000", True),
        (" other , h.example.org ", False),
    ],
)  # fmt: skip
def test_no_proxy(exceptions: str, proxied: bool) -> None:
    found = named("http://h.example.org:8000/v1", {"HTTP_PROXY": "http://p:3128", "NO_PROXY": exceptions})
    assert (found is not None) is proxied


@pytest.mark.parametrize("value", ["socks5://p:1080", "http://", "http://p:99999"])
def test_what_is_no_http_proxy_is_not_used(value: str) -> None:
    assert proxy_for("http://h:8000/v1", {"http_proxy": value}) is None


def test_a_gateway_below_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(asked: Asked) -> bytes:
        if not asked.path.startswith("/llm/"):
            return as_json({"detail": "Not Found"}, 404)
        return usual(asked._replace(path=asked.path.removeprefix("/llm")))

    with Scripted({"*": handler}) as server:
        assert walk(f"http://127.0.0.1:{server.port}/llm/v1", OPTIONS).findings == ()
        found = walk(f"http://127.0.0.1:{server.port}/llm", OPTIONS).findings
    assert found[0].fixes[0].settings == {"Base URL": f"http://127.0.0.1:{server.port}/llm/v1"}
