"""The servers probe against real processes and real listening sockets."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from vllm_doctor.facts import Server
from vllm_doctor.probes.servers import listeners, probe_servers, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' process table")

# Stands for vLLM's launcher: the same words in the process table, and nothing behind them.
LAUNCHER = """\
import socket, sys, time
if "--listen" in sys.argv:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
print("up", flush=True)
time.sleep(120)
"""

CANARY = "sk-canary0123456789"


@contextlib.contextmanager
def started(*command: str, folder: Path) -> Iterator[int]:
    """A process with that command line, from its first line of output until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder, start_new_session=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n"
        yield process.pid
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()


@pytest.fixture
def vllm(tmp_path: Path) -> str:
    path = tmp_path / "vllm"
    path.write_text(LAUNCHER)
    return str(path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def found(pid: int) -> Server:
    return next(server for server in probe_servers().running if server.pid == pid)


def test_a_server_that_loads(vllm: str, tmp_path: Path) -> None:
    port = free_port()
    command = (sys.executable, vllm, "serve", "acme/model", "--port", str(port), "--api-key", CANARY)
    with started(*command, folder=tmp_path) as pid:
        server = found(pid)
    assert (server.model, server.port, server.listening, server.other_network) == ("acme/model", port, False, False)
    assert isinstance(server.age_seconds, float) and server.age_seconds < 60
    assert CANARY not in msgspec.json.encode(server).decode()
    assert server.command.startswith("vllm serve acme/model")


def test_a_server_that_listens(vllm: str, tmp_path: Path) -> None:
    port = free_port()
    command = (sys.executable, vllm, "serve", "acme/model", f"--port={port}", "--port", str(port), "--listen")
    with started(*command, folder=tmp_path) as pid:
        servers = probe_servers()
        assert next(s.listening for s in servers.running if s.pid == pid)
        assert isinstance(servers.listeners, tuple)
        assert next(one.pid for one in servers.listeners if one.port == port) == pid


def test_the_default_port_and_a_config_file(vllm: str, tmp_path: Path) -> None:
    with started(sys.executable, vllm, "serve", "m", folder=tmp_path) as pid:
        assert found(pid).port == 8000
    (tmp_path / "serve.yaml").write_text("port: 8123\n")
    with started(sys.executable, vllm, "serve", "m", "--config", "serve.yaml", folder=tmp_path) as pid:
        assert found(pid).port == 8123


def test_a_server_behind_a_unix_socket_has_no_port(vllm: str, tmp_path: Path) -> None:
    with started(sys.executable, vllm, "serve", "m", "--uds", "/run/x.sock", folder=tmp_path) as pid:
        assert (found(pid).port, found(pid).listening) == (None, None)


def test_what_only_starts_a_server_is_none(vllm: str, tmp_path: Path) -> None:
    timeout = shutil.which("timeout")
    if timeout is None:
        pytest.skip("timeout(1) is not installed")
    with started(timeout, "100", sys.executable, vllm, "serve", "m", "--port", "8999", folder=tmp_path) as pid:
        servers = [s.pid for s in probe_servers().running if s.port == 8999]
    assert len(servers) == 1
    assert servers != [pid]


def test_children_and_lookalikes_are_no_servers(tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    for title in ("VLLM::EngineCore", "VLLM::Worker_TP0", "less vllm serve notes"):
        process = subprocess.Popen([title, "60"], executable=sleep)
        try:
            assert process.pid not in [s.pid for s in probe_servers().running]
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("words", "server"),
    [
        (("/v/bin/python", "/v/bin/vllm", "serve", "m"), True),
        (("python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"), True),
        (("python3", "-m", "vllm.entrypoints.api_server", "--model", "m"), True),
        (("uv", "run", "vllm", "serve", "m"), True),
        (("grep", "vllm serve"), False),
        (("python3", "-m", "vllm.entrypoints.cli.collect_env"), False),
        (("python3", "bench.py", "--name", "a", "b", "c", "vllm", "serve"), False),
        (("vllm", "bench", "serve"), False),
    ],
)
def test_command_lines(words: tuple[str, ...], server: bool) -> None:
    assert bool(running.launch_words(words)) is server


def test_a_listener_of_this_process_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        servers = probe_servers(ports=(port,))
        assert isinstance(servers.listeners, tuple)
        mine = next(one for one in servers.listeners if one.port == port)
    assert (mine.address, mine.pid) == ("127.0.0.1", os.getpid())
    assert mine.command
    assert mine.user


def test_a_listener_of_both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        servers = probe_servers()
        assert isinstance(servers.listeners, tuple)
        mine = next(one for one in servers.listeners if one.port == port)
    # Whose it is was not asked for.
    assert (mine.address, mine.pid) == ("::", None)


def test_a_network_of_its_own(vllm: str, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make network namespaces")
    with started(unshare, "-n", sys.executable, vllm, "serve", "m", folder=tmp_path) as pid:
        server = found(pid)
    assert (server.other_network, server.listening) == (True, None)


def test_it_loads_no_http() -> None:
    """Unless a server runs here, which is then asked."""
    code = (
        "import sys, time; from vllm_doctor.probes.servers import probe_servers; found = probe_servers(ports=(8000,));"
        "print([m for m in ('httpcore', 'httpx', 'yaml', 'ssl') if m in sys.modules and not found.answers])"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_hundreds_of_listeners_are_all_seen() -> None:
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(300)]
        ports = {one.getsockname()[1] for one in many}
        # Connections stand behind the listeners in the kernel's table.
        stack.enter_context(socket.create_connection(many[0].getsockname()))
        asked = many[-1].getsockname()[1]
        servers = probe_servers(ports=(asked,))
    assert isinstance(servers.listeners, tuple)
    assert ports <= {one.port for one in servers.listeners}
    assert [one.port for one in servers.listeners if one.pid == os.getpid()] == [asked]


# Stands for a server that is up: the words of vLLM's launcher, and a scripted HTTP server behind them.
ANSWERING = """\
import http.server, json, sys
BODIES = {"/health": b"", "/version": b'{"version": "0.32.0"}', "/v1/models": b'{"data": [{"id": "tiny"}]}'}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = BODIES.get(self.path, b"{}")
        self.send_response(200 if self.path in BODIES else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler)
print("up", flush=True)
server.serve_forever()
"""


def test_a_server_of_this_host_is_asked(tmp_path: Path) -> None:
    (tmp_path / "vllm").write_text(ANSWERING)
    port = free_port()
    with started(sys.executable, str(tmp_path / "vllm"), "serve", "m", "--port", str(port), folder=tmp_path) as pid:
        answers = {answer.pid: answer for answer in probe_servers().answers}
    assert answers[pid].url == f"http://127.0.0.1:{port}"
    assert (answers[pid].health_status, answers[pid].version, answers[pid].models) == (200, "0.32.0", ("tiny",))


def test_a_server_with_a_certificate_and_one_that_loads_are_not_asked(vllm: str, tmp_path: Path) -> None:
    port = free_port()
    words = (sys.executable, vllm, "serve", "m", "--port", str(port))
    with started(*words, "--listen", "--ssl-certfile", "cert.pem", folder=tmp_path) as pid:
        servers = probe_servers()
        assert next(s for s in servers.running if s.pid == pid).tls
        assert pid not in [answer.pid for answer in servers.answers]
    with started(*words, folder=tmp_path) as pid:
        assert pid not in [answer.pid for answer in probe_servers().answers]


@pytest.mark.parametrize(
    ("addresses", "reached"),
    [
        (["0.0.0.0"], "127.0.0.1"),
        (["::"], "127.0.0.1"),
        (["10.0.0.9", "127.0.0.1"], "127.0.0.1"),
        (["10.0.0.9"], "10.0.0.9"),
        (["::1"], "[::1]"),
    ],
)
def test_where_a_listener_is_reached(addresses: list[str], reached: str) -> None:
    assert listeners.reachable(addresses) == reached
