"""A real server: found in the process table, its port named as taken, its answers read."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import MOVING_CHECKS, doctor
from tests.e2e.serving import short_folder

pytestmark = pytest.mark.real_vllm

READY_SECONDS = 300


@pytest.fixture(scope="module")
def server(vllm_python: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real vLLM that serves tiny-llama."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    flags = f"--enforce-eager --max-model-len 2048 --host 127.0.0.1 --port {port} --served-model-name tiny"
    argv = [str(vllm_python.parent / "vllm"), "serve", str(models / "tiny-llama"), *flags.split()]
    with short_folder() as temporary, (folder / "log").open("wb") as log:
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "TMPDIR": temporary}
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            _wait(process, port, folder / "log")
            yield port
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.5)
    pytest.fail(f"the server did not come up: {log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def test_the_running_server_is_found_and_its_port_is_taken(server: int, vllm_python: Path, models: Path) -> None:
    launch = (str(vllm_python.parent / "vllm"), "serve", str(models / "tiny-hello"), "--port", str(server),
              "--max-model-len", "2048")  # fmt: skip
    done = doctor("run", "--format", "json", "--", *launch, variables={"VLLM_CPU_KVCACHE_SPACE": "1"})
    report = json.loads(done.stdout)
    taken = [f for f in report["findings"] if f["cause"] == "port-in-use"]
    assert len(taken) == 1
    assert "vllm serve" in " ".join(taken[0]["evidence"])
    corrected = report["launch"]["corrected"]
    assert corrected is not None
    assert f"--port {server}" not in corrected


def found_of(port: int, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Its findings but those of servers of other tests."""
    return [
        finding
        for finding in report["findings"]
        if finding["severity"] != "info"
        and (finding["check"] not in MOVING_CHECKS or f":{port}" in f"{finding['title']} {finding['evidence']}")
    ]


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_its_answers_are_read_and_bring_no_finding(server: int, vllm_python: Path, path: str) -> None:
    done = doctor("run", "--python", vllm_python, "--url", f"http://127.0.0.1:{server}{path}", "--format", "json")
    report = json.loads(done.stdout)
    assert found_of(server, report) == []


def test_it_is_asked_without_a_url(server: int, vllm_python: Path) -> None:
    done = doctor("run", "--python", vllm_python, "--format", "json")
    report = json.loads(done.stdout)
    assert found_of(server, report) == []
    statuses = {c["id"]: c["status"] for c in report["checks"]}
    assert {statuses["server-answer"], statuses["server-health"]} <= {"passed", "found"}
    shown = doctor("run", "--python", vllm_python).stdout
    assert f"http://127.0.0.1:{server} · pid " in shown
    assert "serves tiny" in shown


def test_a_url_where_nothing_listens_is_refused(vllm_python: Path) -> None:
    done = doctor("run", "--python", vllm_python, "--url", "http://127.0.0.1:9/v1", "--format", "json")
    assert [f["cause"] for f in found_of(9, json.loads(done.stdout))] == ["connection-refused"]
