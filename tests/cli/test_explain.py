"""`vllm-doctor explain` as a process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.calling import ROOT, doctor

LOG = (
    "(APIServer pid=1) INFO 01-01 00:00:00 [a.py:1] vLLM API server version 0.10.0\n"
    "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV "
    "cache (23552). Try increasing `gpu_memory_utilization` or decreasing `max_model_len`\n"
    "RuntimeError: Engine core initialization failed. See root cause above.\n"
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with one root cause."""
    path = tmp_path / "server.log"
    path.write_text(LOG)
    return path


def test_a_log_is_explained(log: Path) -> None:
    done = doctor("explain", log)
    assert done.returncode == 1
    assert "oom-kv" in done.stdout
    assert "set --max-model-len 23552" in done.stdout
    assert done.stderr == ""


def test_the_json_document(log: Path) -> None:
    done = doctor("explain", log, "--format", "json")
    document = json.loads(done.stdout)
    assert document.keys() == {"schema", "findings"}
    assert document["schema"] == "vllm-doctor/explanation/1"
    (finding,) = document["findings"]
    assert finding["cause"] == "oom-kv"
    assert [line["number"] for line in finding["lines"]] == [2]
    assert finding["fixes"][0]["launch"]["set"] == {"--max-model-len": "23552"}


@pytest.mark.parametrize("format_name", ["junit", "github", "html", "markdown"])
def test_every_format_names_the_cause(log: Path, format_name: str) -> None:
    done = doctor("explain", log, "--format", format_name)
    assert done.returncode == 1
    assert "oom-kv" in done.stdout


def test_standard_input(log: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vllm_doctor", "explain", "-"],
        input=LOG,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "oom-kv" in done.stdout


def test_nothing_recognised_is_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "odd.log"
    path.write_text("hello\nmade.up.StrangeError: odd\n")
    done = doctor("explain", path)
    assert done.returncode == 0
    assert "made.up.StrangeError: odd" in done.stdout
    assert "VLLM_LOGGING_LEVEL=DEBUG" in done.stdout


def test_fail_on_and_ignore(log: Path) -> None:
    assert doctor("explain", log, "--fail-on", "never").returncode == 0
    assert doctor("explain", log, "--ignore", "oom-kv").returncode == 0


def test_a_page_and_the_list() -> None:
    assert doctor("explain", "oom-kv").returncode == 0
    assert "oom-kv" in doctor("explain").stdout


def test_what_is_neither_file_nor_cause() -> None:
    done = doctor("explain", "oom-kvv")
    assert done.returncode == 2
    assert "did you mean oom-kv?" in done.stderr


def test_a_growing_log_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "growing.log"
    path.write_text("starting\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm_doctor", "explain", "--follow", str(path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(1)
        with path.open("a") as file:
            file.write(LOG)
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == "The root cause\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.communicate()


def test_an_annotation_says_that_the_text_tells_of_it(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("OSError: [Errno 98] Address already in use\n")
    done = doctor("explain", log, "--format", "github")
    assert "vllm-doctor: The text tells of 1 error." in done.stdout


def test_an_empty_text_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "empty.log").touch()
    done = doctor("explain", tmp_path / "empty.log")
    assert done.stdout == "The text is empty: there is nothing to explain.\n"
