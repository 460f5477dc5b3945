"""Starts a real vLLM as a whole process, waits until it serves, and takes it down with everything it started."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

READY_SECONDS = 400


class Running:
    """A server: its process, port and log."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    @property
    def base(self) -> str:
        """What a client enters."""
        return f"http://127.0.0.1:{self.port}/v1"

    def wait(self) -> None:
        """Until /health answers."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5),
            ):
                return
            time.sleep(0.5)
        pytest.fail(f"the server did not come up: {self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """SIGTERM to the group, then SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


@contextmanager
def starting(
    python: Path, model: Path, folder: Path, *flags: str, variables: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """The server of that model while it still loads; stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    argv = [str(python.parent / "vllm"), "serve", str(model), "--enforce-eager", "--max-model-len", "2048",
            "--host", "127.0.0.1", "--port", str(port), *flags]  # fmt: skip
    with short_folder() as temporary, (folder / "log").open("wb") as log:
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "TMPDIR": temporary}
        environment |= dict(variables or {})
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        server = Running(process, port, folder / "log")
        try:
            yield server
        finally:
            server.stop()


def short_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for TMPDIR: vLLM binds sockets there, and the path of a socket holds 107 characters at most."""
    return tempfile.TemporaryDirectory(prefix="vd-", dir="/tmp", ignore_cleanup_errors=True)


@contextmanager
def serving(python: Path, model: Path, folder: Path, *flags: str) -> Iterator[Running]:
    """The same once it answers."""
    with starting(python, model, folder, *flags) as server:
        server.wait()
        yield server
