"""Exit codes and the one line of every wrong call."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.calling import HEALTHY, ROOT, doctor

LAUNCH = ("--", "vllm", "serve", "Qwen/Qwen2.5-7B-Instruct")


def test_nothing_found_is_0() -> None:
    done = doctor("run", "--snapshot", HEALTHY)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_is_1_and_fail_on_decides() -> None:
    wrong = (*LAUNCH, "--tensor-parallel-size", "2")
    assert doctor("run", "--snapshot", HEALTHY, *wrong).returncode == 1
    assert doctor("run", "--snapshot", HEALTHY, "--fail-on", "never", *wrong).returncode == 0
    assert doctor("run", "--snapshot", HEALTHY, "--ignore", "gpu-count", *wrong).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--no-such-option"),
        ("run", "--format", "yaml"),
        ("run", "--select", "no-such-check"),
        ("run", "--snapshot", "/no/such/file"),
        ("run", "--snapshot", "/dev/zero"),
        ("run", "--snapshot", str(HEALTHY), "--env-report", "x"),
        ("run", "--env-report", "/etc/hostname"),
        ("run", "--python", "/no/such/python"),
        ("run", "--timeout", "-1"),
        ("run", "--", "ls", "-l"),
        ("run", "--", "vllm"),
        ("checks", "no-such-check"),
        ("explain", "no-such-cause"),
        ("no-such-verb",),
        ("snapshot",),
        ("snapshot", "-o", "/no/such/folder/x.json"),
    ],
)
def test_a_wrong_call_is_2_with_one_line(arguments: tuple[str, ...]) -> None:
    done = doctor(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("vllm-doctor: error: ")


def test_a_broken_settings_file_is_2_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "vllm-doctor.toml").write_text("fail-on = 'sometimes'", encoding="utf-8")
    done = doctor("run", "--snapshot", HEALTHY, folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_settings_apply_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "vllm-doctor.toml").write_text("fail-on = 'never'\nformat = 'json'\n", encoding="utf-8")
    wrong = (*LAUNCH, "--tensor-parallel-size", "2")
    done = doctor("run", "--snapshot", HEALTHY, *wrong, folder=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "error")
    assert doctor("run", "--snapshot", HEALTHY, "--fail-on", "error", *wrong, folder=tmp_path).returncode == 1


def test_an_interrupt_is_130_without_a_traceback(tmp_path: Path) -> None:
    # A server that accepts and never answers keeps the doctor waiting.
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm_doctor", "run", "--url", url],
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(30)
        connection, _ = silent.accept()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
        connection.close()
    assert process.returncode == 130
    # click ends the line of the terminal (^C) first.
    assert complaint == "\nvllm-doctor: interrupted\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m vllm_doctor checks | head -n 1"],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("--version",), ("checks",), ("explain",)])
def test_help_and_lists_are_0(arguments: tuple[str, ...]) -> None:
    done = doctor(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
