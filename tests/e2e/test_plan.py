"""The plan's KV cache is what a real vLLM logs of the same launch, token for token."""

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.trial.jobs import free_port
from vllm_doctor.launch.parse import parse_launch
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Device
from vllm_doctor.memory.plan import Plan, Verdict, plan
from vllm_doctor.memory.settings import read_settings
from vllm_doctor.trial.job import Job, start

pytestmark = pytest.mark.real_vllm

GIB = 2**30
RELEASE = (0, 32, 0)
START_SECONDS = 240

# vLLM for CPUs knows one kind of cache group only, so sliding layers are kept whole (`--disable-hybrid...` is implied).
FLAGS = ("--enforce-eager", "--max-model-len", "1024", "--block-size", "16", "--max-num-seqs", "8")
LAUNCHES = {
    "tiny-llama": FLAGS,
    "tiny-qwen2": (*FLAGS, "--max-num-batched-tokens", "1024"),
    "tiny-gemma2": (*FLAGS, "--disable-hybrid-kv-cache-manager"),
}
CACHE_BYTES = 48 * 2**20

_SIZE = re.compile(r"KV cache size: ([\d,]+) tokens")
_TIMES = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")


class Logged(NamedTuple):
    """What vLLM said of its cache."""

    tokens: int
    max_model_len: int
    max_concurrency: float


def _number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.fixture(params=sorted(LAUNCHES))
def started(request: pytest.FixtureRequest, vllm_python: Path, models: Path) -> tuple[str, Logged]:
    """A model, and what a real vLLM logs of its cache; it is ended as soon as it has."""
    model = models / request.param
    argv = ["serve", str(model), *LAUNCHES[request.param], "--kv-cache-memory-bytes", str(CACHE_BYTES)]
    variables = {k: v for k, v in os.environ.items() if k != "VLLM_CPU_KVCACHE_SPACE"}
    variables |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    port = free_port()
    words = [str(vllm_python.parent / "vllm"), *argv, "--host", "127.0.0.1", "--port", str(port)]
    with start(words, environment=variables, folder=None, port=port) as job:
        return request.param, _read(job)


def _read(job: Job) -> Logged:
    for _ in range(START_SECONDS * 2):
        text = job.log.read_text(errors="replace")
        size, times = _SIZE.search(text), _TIMES.search(text)
        if size and times:
            return Logged(_number(size[1]), _number(times[1]), float(times[2]))
        if job.exit_code() is not None:
            break
        time.sleep(0.5)
    pytest.fail(f"vLLM did not come so far as to size its cache: {job.log.read_text(errors='replace')[-3000:]}")


def planned(model: Path) -> Plan:
    """The plan of the same launch, on a card that is large enough."""
    launch = parse_launch(
        ["vllm", "serve", str(model), *LAUNCHES[model.name], "--kv-cache-memory-bytes", str(CACHE_BYTES)]
    )
    card = Device(name="any", total_bytes=16 * GIB, capability=80)
    return plan(read_architecture((model / "config.json").read_text()), read_settings(launch), card, RELEASE)


def test_tokens_and_concurrency_are_those_that_vllm_logs(started: tuple[str, Logged], models: Path) -> None:
    name, logged = started
    found = planned(models / name)
    assert found.verdict is Verdict.FITS
    assert found.exact
    assert (found.tokens, found.max_model_len, round(found.max_concurrency, 2)) == logged
