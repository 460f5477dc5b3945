"""The canary on a real vLLM for CPU: its exact texts in each dtype, by two ranks, and what a wrong launch shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.serving import Running, starting
from vllm_doctor.client.visit import Options
from vllm_doctor.client.walk import Connection
from vllm_doctor.trial import canary, proof
from vllm_doctor.trial.proof import Blame

pytestmark = pytest.mark.real_vllm

STEPS = ("sentence", "cached", "streamed", "long-prompt", "called", "streamed-call", "batch")


@contextmanager
def served(python: Path, folder: Path, *more: str, tp: int = 1) -> Iterator[Running]:
    flags = (*canary.flags("cpu", tp=tp), *more)
    with starting(python, canary.folder(), folder, *flags, variables=canary.variables("cpu", tp=tp)) as server:
        server.wait()
        yield server


def proved(server: Running, tp: int = 1) -> Connection:
    return proof.prove(server.base, Options(tools=True), blame=Blame(platform="cpu", tp=tp))


def passed(connection: Connection) -> set[str]:
    assert connection.findings == ()
    return {step.name for step in connection.steps if step.status == "passed"}


@pytest.mark.parametrize(
    "flags",
    [
        ("--dtype", "bfloat16"),
        ("--dtype", "float32", "--block-size", "32"),
        ("--dtype", "float16", "--enable-chunked-prefill", "--max-num-batched-tokens", "64"),
        ("--kv-cache-dtype", "fp8"),
    ],
    ids=" ".join,
)
def test_every_text_is_exact(vllm_python: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    with served(vllm_python, tmp_path, *flags) as server:
        assert passed(proved(server)) >= set(STEPS)


def test_two_ranks_say_the_same(vllm_python: Path, tmp_path: Path) -> None:
    with served(vllm_python, tmp_path, tp=2) as server:
        assert passed(proved(server, tp=2)) >= set(STEPS)


def test_another_parser_leaves_the_call_in_the_text(vllm_python: Path, tmp_path: Path) -> None:
    with served(vllm_python, tmp_path, "--tool-call-parser", "pythonic") as server:
        (found,) = proved(server).findings
    assert (found.check, found.cause) == ("tools", "tool-parser-wrong")


def test_a_server_that_forgets_a_rotation_is_found(vllm_python: Path, tmp_path: Path) -> None:
    """The rotary base of the config overridden: everything answers, and every number is wrong."""
    wrong = '{"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}'
    with served(vllm_python, tmp_path, "--hf-overrides", wrong) as server:
        (found,) = proved(server).findings
    assert (found.check, found.cause) == ("sentence", "vllm-bug")
    assert found.evidence[0] == f"expected: {canary.SENTENCE!r}"
