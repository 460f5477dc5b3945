"""The canary on a real vLLM for CPU: its exact texts in each dtype, by two ranks, and what a wrong launch shows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.calling import doctor
from tests.e2e.serving import Running, starting
from vllm_doctor.client.visit import Options
from vllm_doctor.client.walk import Connection
from vllm_doctor.trial import canary, proof
from vllm_doctor.trial.proof import Blame

pytestmark = pytest.mark.real_vllm

STEPS = ("sentence", "cached", "streamed", "long-prompt", "called", "streamed-call", "batch")


@contextmanager
def served(python: Path, folder: Path, *more: str) -> Iterator[Running]:
    flags = (*canary.flags("cpu"), *more)
    with starting(python, canary.folder(), folder, *flags, variables=canary.variables("cpu")) as server:
        server.wait()
        yield server


def proved(server: Running) -> Connection:
    return proof.prove(server.base, Options(tools=True), blame=Blame(platform="cpu"))


def passed(connection: Connection) -> set[str]:
    assert connection.findings == ()
    return {step.name for step in connection.steps if step.status == "passed"}


@pytest.mark.parametrize(
    "flags",
    [
        ("--dtype", "float32", "--block-size", "32"),
        ("--dtype", "float16", "--enable-chunked-prefill", "--max-num-batched-tokens", "64"),
        ("--kv-cache-dtype", "fp8"),
    ],
    ids=" ".join,
)
def test_every_text_is_exact(vllm_python: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    with served(vllm_python, tmp_path, *flags) as server:
        assert passed(proved(server)) >= set(STEPS)


@pytest.mark.parametrize("tp", [1, 2])
def test_verify_launches_it_proves_every_text_and_leaves_nothing(vllm_python: Path, tmp_path: Path, tp: int) -> None:
    asked = ("verify", "--python", vllm_python, "--tp", str(tp), "--format", "json")
    done = doctor(*asked, variables={"HOME": str(tmp_path)}, timeout_seconds=600)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["verdict"], document["findings"]) == ("ok", [])
    assert {step["step"] for step in document["steps"] if step["status"] == "passed"} >= set(STEPS)
    assert document["left_behind"] == {"processes": 0, "gpu_bytes": 0}
    assert [attempt["outcome"] for attempt in document["attempts"]] == ["ok"]
    assert (f"--tensor-parallel-size {tp}" in document["known_good"]) == (tp > 1)
    assert list(tmp_path.rglob("*")) == []


def test_another_parser_leaves_the_call_in_the_text(vllm_python: Path, tmp_path: Path) -> None:
    with served(vllm_python, tmp_path, "--tool-call-parser", "pythonic") as server:
        (found,) = proved(server).findings
    assert (found.check, found.cause) == ("called", "tool-parser-wrong")


def test_a_server_that_forgets_a_rotation_is_found(vllm_python: Path, tmp_path: Path) -> None:
    """The rotary base of the config overridden: everything answers, and every number is wrong."""
    wrong = '{"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}'
    with served(vllm_python, tmp_path, "--hf-overrides", wrong) as server:
        (found,) = proved(server).findings
    assert (found.check, found.cause) == ("sentence", "vllm-bug")
    assert found.evidence[0] == f"expected: {canary.SENTENCE!r}"
