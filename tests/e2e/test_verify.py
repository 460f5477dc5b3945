"""`verify` on a real vLLM: faults of a launch, the cause, the command that serves instead, and nothing left behind."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.calling import doctor
from tests.e2e.serving import short_folder

pytestmark = pytest.mark.real_vllm

SECONDS = 400.0
VARIABLES = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
BASE = "--enforce-eager --host 127.0.0.1"

# A fault that the checks are certain of: its flags, its cause, and what the command that serves has instead.
KNOWN_BEFORE = [
    pytest.param("tiny-hello", "--max-model-length 2048", "bad-flag", "--max-model-len 2048", id="a misspelt flag"),
    pytest.param("tiny-hello", "--max-model-len 99999", "max-len-over-model", "--max-model-len 4096", id="too long"),
    pytest.param(
        "tiny-toolcall", "--max-model-len 2048 --enable-auto-tool-choice --tool-call-parser hermess",
        "bad-flag", "--tool-call-parser hermes", id="a parser that there is not",
    ),
    pytest.param(
        "tiny-hello", "--max-model-len 2048 --chat-template nowhere.jinja -tp 2", "gpu-count", "--max-model-len 2048",
        id="more ranks than devices, and a template that is not there",
    ),
]  # fmt: skip

# One that only the start shows.
SHOWN_BY_START = [
    pytest.param("tiny-toolcall", "--tools", "tools-not-enabled", "--tool-call-parser hermes", id="tools, no parser"),
    pytest.param(
        "tiny-toolcall --enable-auto-tool-choice --tool-call-parser pythonic", "",
        "tool-parser-wrong", "--tool-call-parser hermes", id="another family's parser",
    ),
]  # fmt: skip

# One that no flag mends: the model, the cause, and whether anything is started.
HOPELESS = [
    pytest.param("broken-notokenizer", "model-files-incomplete", False, id="no tokenizer"),
    pytest.param("broken-truncated", "model-files-incomplete", False, id="truncated weights"),
    pytest.param("tiny-llama-notemplate", "chat-template-missing", True, id="no chat template"),
]


def verify(python: Path, *arguments: str | Path, variables: dict[str, str] | None = None) -> dict[str, Any]:
    """The document of a verification, whose exit code agrees with its verdict."""
    done = doctor(
        "verify", "--python", python, "--format", "json", *arguments,
        variables=VARIABLES | (variables or {}), timeout_seconds=SECONDS,
    )  # fmt: skip
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if document["verdict"] == "ok" else 1)
    assert document["left_behind"] == {"processes": 0, "gpu_bytes": 0}
    assert all(each["clean"] for each in document["teardown"])
    return document


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def causes(document: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in document["attempts"]]


def launch(models: Path, model: str, flags: str = "--max-model-len 2048") -> list[str]:
    return ["vllm", "serve", str(models / model), *BASE.split(), "--port", str(free_port()), *flags.split()]


def test_a_launch_that_serves_is_ok_and_its_command_known(vllm_python: Path, models: Path) -> None:
    document = verify(vllm_python, "--", *launch(models, "tiny-hello"))
    assert document["verdict"] == "ok"
    assert causes(document) == ["ok"]
    assert document["ready_seconds"] > 1
    assert {s["step"]: s["status"] for s in document["steps"]}["chat"] == "passed"
    assert {row["name"] for row in document["memory"]} >= {"KV cache"}


@pytest.mark.parametrize(("model", "flags", "cause", "has"), KNOWN_BEFORE)
def test_a_fault_that_the_checks_are_certain_of_is_mended_before_anything_is_started(
    vllm_python: Path, models: Path, model: str, flags: str, cause: str, has: str
) -> None:
    document = verify(vllm_python, "--", *launch(models, model, flags))
    assert causes(document) == [cause, "ok"]
    assert [attempt["started"] for attempt in document["attempts"]] == [False, True]
    assert document["findings"][0]["cause"] == cause
    assert has in document["known_good"]


@pytest.mark.parametrize(("words", "option", "cause", "has"), SHOWN_BY_START)
def test_a_fault_that_the_start_shows_is_mended_in_the_next(
    vllm_python: Path, models: Path, words: str, option: str, cause: str, has: str
) -> None:
    model, *flags = words.split()
    document = verify(vllm_python, *option.split(), "--", *launch(models, model), *flags)
    assert causes(document) == [cause, "ok"]
    assert document["findings"][0]["cause"] == cause
    assert {s["step"]: s["status"] for s in document["steps"]}["tools"] == "passed"
    assert has in document["known_good"]


def test_the_context_is_the_one_that_the_log_names(vllm_python: Path, models: Path) -> None:
    flags = "--max-model-len 131072 --kv-cache-memory-bytes 16M"
    words = ["env", "-u", "VLLM_CPU_KVCACHE_SPACE", *launch(models, "tiny-llama-longctx", flags)]
    document = verify(vllm_python, "--ignore", "kv-cache-size", "--", *words)
    assert causes(document) == ["oom-kv", "ok"]
    assert document["attempts"][0]["stage"] in ("profile", "kv")
    assert document["attempts"][0]["exit_code"] == 1
    with typed(document["known_good"], vllm_python, document["known_good"]) as base:
        assert served(base) == [str(models / "tiny-llama-longctx")]


@pytest.mark.parametrize(("model", "cause", "started"), HOPELESS)
def test_what_no_flag_mends_ends_at_once(
    vllm_python: Path, models: Path, model: str, cause: str, started: bool
) -> None:
    document = verify(vllm_python, "--", *launch(models, model))
    assert causes(document) == [cause]
    assert document["known_good"] is None
    assert document["attempts"][0]["started"] is started


def test_a_taken_port_is_left_to_its_owner_and_the_command_found_serves_when_it_is_typed(
    vllm_python: Path, models: Path, tmp_path: Path
) -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        words = ["vllm", "serve", str(models / "tiny-hello"), *BASE.split(), "--max-model-len", "2k",
                 "--port", str(owner.getsockname()[1]), "--api-key", "of the owner's"]  # fmt: skip
        document = verify(vllm_python, "--", *words)
        assert causes(document) == ["port-in-use", "ok"]
    assert "of the owner" not in json.dumps(document)
    (tmp_path / "good.yaml").write_text(document["known_good_config"].replace("***", "key"))
    with typed(f"vllm serve --config {tmp_path}/good.yaml", vllm_python, document["known_good"]) as base:
        assert served(base, "key") == [str(models / "tiny-hello")]


@contextmanager
def typed(line: str, python: Path, good: str) -> Iterator[str]:
    """The command in a shell of its own until its server answers; the address, from the port of the good one."""
    words = shlex.split(good)
    base = f"http://127.0.0.1:{words[words.index('--port') + 1]}"
    with short_folder() as temporary:
        variables = os.environ | VARIABLES | {"TMPDIR": temporary, "PATH": f"{python.parent}:{os.environ['PATH']}"}
        process = subprocess.Popen(
            ["sh", "-c", f"exec {line}"], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(lambda: process.poll() is not None or answers(base), "an answer")
            yield base
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def answers(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}/health", timeout=5):
            return True
    except OSError:
        return False


def served(base: str, key: str = "none") -> list[str]:
    asked = urllib.request.Request(f"{base}/v1/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=10) as reply:
        return [model["id"] for model in json.load(reply)["data"]]


def wait_for(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.05)


class Watched:
    """A doctor at work on a launch of tiny-hello, from outside."""

    def __init__(self, python: Path, models: Path) -> None:
        self.port = free_port()
        root = Path(__file__).resolve().parents[2]
        words = ["vllm", "serve", str(models / "tiny-hello"), *BASE.split(), "--max-model-len", "2048",
                 "--port", str(self.port)]  # fmt: skip
        variables = os.environ | VARIABLES | {"PYTHONPATH": f"{root}:{root / 'checks'}"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vllm_doctor", "verify", "--python", str(python), "--format", "json", "--", *words],
            env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.seen: dict[int, psutil.Process] = {}

    def tree(self) -> list[psutil.Process]:
        """Everything below the doctor, which is remembered."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self.seen[process.pid] = process
        return list(self.seen.values())

    def engines(self) -> list[psutil.Process]:
        """The engine core and its workers."""
        return [p for p in self.tree() if p.is_running() and name_of(p).startswith("VLLM::")]

    def reaches(self, stage: str) -> bool:
        """Whether the start is there: vLLM is imported, the engine is set up, or it serves."""
        tree = self.tree()
        if stage == "import":
            return any("serve" in command_of(p) for p in tree)
        return bool(self.engines()) if stage == "engine" else answers(f"http://127.0.0.1:{self.port}")

    def gone(self) -> bool:
        """Whether nothing of it lives, and its port is free."""
        return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in self.seen.values())

    def document(self) -> dict[str, Any]:
        """What it printed in the end."""
        said, _ = self.process.communicate(timeout=SECONDS)
        found: dict[str, Any] = json.loads(said)
        return found


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("stage", ["engine", "serving"])
def test_an_engine_that_is_killed_is_named_and_not_tried_again(vllm_python: Path, models: Path, stage: str) -> None:
    watched = Watched(vllm_python, models)
    wait_for(lambda: watched.reaches(stage), stage)
    for process in watched.engines():
        process.kill()
    document = watched.document()
    assert causes(document) == ["engine-dead"]
    assert document["known_good"] is None
    assert document["left_behind"] == {"processes": 0, "gpu_bytes": 0}
    assert watched.gone()


@pytest.mark.parametrize(
    ("number", "stage"),
    [(signal.SIGINT, "engine"), (signal.SIGKILL, "serving")],
)
def test_whatever_ends_the_doctor_ends_the_server(
    vllm_python: Path, models: Path, number: signal.Signals, stage: str
) -> None:
    """The stages between are walked in test_job.py."""
    watched = Watched(vllm_python, models)
    wait_for(lambda: watched.reaches(stage), stage)
    os.kill(watched.process.pid, number)
    said, _ = watched.process.communicate(timeout=60)
    assert watched.process.returncode == (-9 if number is signal.SIGKILL else 130)
    assert said == ""
    wait_for(watched.gone, "the end of the server", 40)
    assert not answers(f"http://127.0.0.1:{watched.port}")
