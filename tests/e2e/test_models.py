"""Every good model is quiet and every broken one is named by its cause, before anything is launched."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import MOVING_CHECKS, doctor

pytestmark = pytest.mark.real_vllm

SERVES = ("tiny-llama", "tiny-llama-strict", "tiny-llama-longctx", "tiny-qwen2", "tiny-mixtral", "tiny-gemma2",
          "tiny-mla", "tiny-toolcall", "tiny-hello")  # fmt: skip

# What a real vLLM 0.32 says of each when it is launched (or, of the last two, serves without a word).
BROKEN = {
    "broken-lfs": "model-files-incomplete",
    "broken-lfs-tokenizer": "model-files-incomplete",
    "broken-truncated": "model-files-incomplete",
    "broken-shard-missing": "model-files-incomplete",
    "broken-noweights": "model-files-incomplete",
    "broken-noconfig": "model-files-incomplete",
    "broken-badjson": "model-files-incomplete",
    "broken-notokenizer": "model-files-incomplete",
    "broken-shape": "model-files-incomplete",
    "broken-arch": "model-arch-unsupported",
    "broken-modeltype": "model-arch-unsupported",
    "broken-remote-code": "trust-remote-code",
    "broken-gptq": "quantization-unsupported",
    "broken-awq": "quantization-unsupported",
    "broken-fp8": "quantization-unsupported",
    "broken-quantunknown": "quantization-unsupported",
    "broken-rope": "model-arch-unsupported",
    "lora-r8": "model-files-incomplete",
    "broken-tensor-missing": "model-files-incomplete",
}


def report(python: Path, *launch: str) -> dict[str, Any]:
    """The JSON report of a launch of the real vLLM."""
    vllm = str(python.parent / "vllm")
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "PATH": f"{python.parent}:/usr/bin:/bin"}
    arguments = ("run", "--ignore", ",".join(MOVING_CHECKS), "--format", "json", "--", vllm, "serve", *launch)
    done = doctor(*arguments, variables=variables)
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", SERVES)
def test_a_healthy_model_brings_no_finding(vllm_python: Path, models: Path, name: str) -> None:
    launch = (
        str(models / name),
        "--enforce-eager",
        "--max-model-len",
        "2048",
        "--host",
        "127.0.0.1",
        "--port",
        "18437",
    )
    found = report(vllm_python, *launch)
    assert found["findings"] == []
    assert [c for c in found["checks"] if c["status"] in ("crashed", "unknown")] == []


@pytest.mark.parametrize(("name", "cause"), BROKEN.items())
def test_a_broken_model_is_named_by_its_cause(vllm_python: Path, models: Path, name: str, cause: str) -> None:
    found = report(vllm_python, str(models / name), "--enforce-eager", "--port", "18437")
    assert [f["cause"] for f in found["findings"]][:1] == [cause], found["findings"]


def test_heads_that_do_not_fit_are_named(vllm_python: Path, models: Path) -> None:
    causes = {f["cause"] for f in report(vllm_python, str(models / "broken-heads"), "--port", "18437")["findings"]}
    assert causes & {"model-arch-unsupported", "model-files-incomplete", "tp-divisibility"}
