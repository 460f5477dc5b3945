"""`vllm-doctor verify` as a process, on a pretended vLLM: documents, exit codes, attempts, and no secret in any."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import ROOT, doctor
from tests.trial.jobs import free_port

FAKE = ROOT / "tests" / "trial" / "fake_vllm.py"

# The pretended vLLM is in no environment; of the checks only that of the port has anything to say.
ALONE = ("--select", "port-taken", "--offline")


@pytest.fixture
def vllm(tmp_path: Path) -> str:
    """The path of a `vllm`."""
    script = tmp_path / "vllm"
    script.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({str(FAKE)!r}, run_name='__main__')\n")
    script.chmod(0o755)
    return str(script)


def verified(vllm: str, *flags: str, options: tuple[str, ...] = (), code: int = 0) -> dict[str, Any]:
    done = doctor("verify", *ALONE, *options, "--format", "json", "--", *words(vllm, *flags))
    assert (done.returncode, done.stderr) == (code, "")
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["left_behind"] == {"processes": 0, "gpu_bytes": 0}
    return document


def words(vllm: str, *flags: str) -> list[str]:
    port = () if "--port" in flags else ("--port", str(free_port()))
    return [vllm, "serve", "m", *port, *flags]


def test_a_launch_that_serves_is_0_and_the_document_is_whole(vllm: str) -> None:
    document = verified(vllm)
    assert document["schema"] == "vllm-doctor/verification/1"
    assert document["verdict"] == "ok"
    assert document["known_good"] == document["command"]
    assert document["ready_seconds"] > 0
    assert [(a["command"], a["outcome"]) for a in document["attempts"]] == [(document["command"], "ok")]
    assert {tuple(step) for step in document["steps"]} == {("step", "status", "seconds", "detail")}
    assert document["findings"] == []
    assert document["known_good_config"].startswith("model: m\nport: ")
    figures = {(row["name"], row["unit"]): (row["planned"], row["reported"]) for row in document["memory"]}
    assert figures == {
        ("weights", "bytes"): (None, 3 * 2**29),
        ("KV cache", "bytes"): (None, 2 * 2**30),
        ("KV cache", "tokens"): (None, 32768),
    }


def test_what_the_log_names_is_mended_and_the_exit_code_stays_1(vllm: str) -> None:
    document = verified(vllm, "--max-model-len", "9000", code=1)
    assert [a["outcome"] for a in document["attempts"]] == ["oom-kv", "ok"]
    assert document["verdict"] == "error"
    assert document["findings"][0]["cause"] == "oom-kv"
    assert document["attempts"][0]["exit_code"] == 1
    assert document["known_good"] == document["command"].replace("9000", "4096")
    assert verified(vllm, "--max-model-len", "9000", options=("--fail-on", "never"))["verdict"] == "error"


def test_one_attempt_is_the_command_as_given(vllm: str) -> None:
    document = verified(vllm, "--max-model-len", "9000", options=("--attempts", "1"), code=1)
    assert ([a["outcome"] for a in document["attempts"]], document["known_good"]) == (["oom-kv"], None)
    assert document["ready_seconds"] is None


def test_a_step_that_fails_for_a_flag_is_a_failed_attempt(vllm: str) -> None:
    document = verified(vllm, options=("--tools",), code=1)
    assert document["attempts"][0]["outcome"] == "tools-not-enabled"
    assert {s["step"]: s["status"] for s in document["steps"]}["tools"] == "failed"


def test_a_launch_with_tools_is_walked_with_tools(vllm: str) -> None:
    document = verified(vllm, "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    assert {s["step"]: s["status"] for s in document["steps"]}["tools"] == "passed"


def test_a_log_that_says_nothing_is_not_explained_away(vllm: str) -> None:
    document = verified(vllm, "--silent", code=1)
    assert document["attempts"][0]["outcome"] == "engine-dead"
    assert "exit code 3" in document["findings"][0]["evidence"][0]
    assert any("KV cache size" in line for line in document["attempts"][0]["log_tail"])


def test_a_server_that_ends_while_it_is_asked_died_and_no_client_is_to_blame(vllm: str) -> None:
    document = verified(vllm, "--dies", code=1)
    (attempt,) = document["attempts"]
    assert (attempt["outcome"], attempt["exit_code"]) == ("engine-dead", 0)
    assert attempt["log_tail"][-1].endswith("503 Service Unavailable")
    assert document["findings"][0]["cause"] == "engine-dead"


def test_a_start_that_hangs_is_ended_at_the_limit(vllm: str) -> None:
    document = verified(vllm, "--hang", options=("--limit", "5"), code=1)
    assert document["attempts"][0]["outcome"] == "engine-hang"
    assert 5 < document["attempts"][0]["seconds"] < 30


def test_a_taken_port_is_changed_and_its_owner_left_alone(vllm: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        document = verified(vllm, "--host", "127.0.0.1", "--port", str(port), code=1)
        assert owner.fileno() >= 0
    assert [(a["outcome"], a["started"]) for a in document["attempts"]] == [("port-in-use", False), ("ok", True)]
    assert f"--port {port}" not in document["known_good"]


def test_the_key_of_the_launch_is_used_and_printed_nowhere(vllm: str) -> None:
    secret = "correct horse battery"
    for name in ("json", "text", "junit", "github", "html", "markdown"):
        done = doctor("verify", *ALONE, "--format", name, "-v", "--", *words(vllm, "--api-key", secret))
        assert done.returncode == 0, done.stdout
        assert "horse" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["text", "json", "junit", "github", "html", "markdown"])
def test_every_format_names_the_cause(vllm: str, tmp_path: Path, name: str) -> None:
    options = (*ALONE, "--format", name, "-o", tmp_path / "report", "--attempts", "1")
    done = doctor("verify", *options, "--", *words(vllm, "--max-model-len", "9000"))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert "oom-kv" in (tmp_path / "report").read_text()


def test_where_there_is_no_plan_nothing_is_kept_and_that_is_said(vllm: str, tmp_path: Path) -> None:
    document = verified(vllm, options=("--calibrate", str(tmp_path / "here.json")))
    assert document["calibration"].startswith("Nothing was kept in")
    assert not (tmp_path / "here.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tp", "2", "--", "vllm", "serve", "m"], "--tp is for the canary"),
        (["--matrix", "--", "vllm", "serve", "m"], "--matrix is for the canary"),
        (["--fix"], "no terminal"),
        (["--tp", "3"], "cannot be cut into 3"),
        (["--attempts", "0"], "--attempts"),
        (["--limit", "1"], "--limit"),
        (["--calibrate", __file__], "not a calibration"),
        (["--", "docker", "run", "vllm/vllm-openai", "--model", "m"], "no container"),
        (["--", "bash", "-c", "vllm serve m"], "no shell"),
        (["--", "sudo", "vllm", "serve", "m"], "sudo"),
        (["--", "vllm", "serve", "m", "--uds", "/tmp/s"], "--uds"),
        (["--", "ls"], "starts no vLLM server"),
        (["--", "./nowhere/vllm", "serve", "m"], "nowhere"),
    ],
)
def test_a_wrong_call_is_2_in_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = doctor("verify", *ALONE, *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_is_130_and_takes_the_server_down(vllm: str, number: signal.Signals) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm_doctor", "verify", *ALONE, "--", *words(vllm, "--hang", "--port", str(port))],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"}, cwd="/", text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 30
    while not (started := _serving(port)) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(number)
    said, complained = process.communicate(timeout=30)
    assert (process.returncode, said, complained.strip()) == (130, "", "vllm-doctor: interrupted")
    assert started
    assert not _serving(port)


def _serving(port: int) -> list[str]:
    """The processes whose command line names the port and the program."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(port).encode() in line and b"--hang" in line and b"verify" not in line:
            found.append(folder.name)
    return found
