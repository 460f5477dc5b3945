"""The launch lines of widely copied READMEs: every real mistake in them is found, and nothing else."""

from pathlib import Path

import pytest
from msgspec import structs

from vllm_doctor import registry, snapshot
from vllm_doctor.diagnose import diagnose
from vllm_doctor.errors import LaunchError
from vllm_doctor.finding import Severity
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.model import probe_model

HEALTHY = snapshot.read(Path(__file__).parents[2] / "fixtures" / "snapshots" / "healthy-h100.json")
REGISTRY = registry.load()


def said(line: str, folder: Path) -> list[tuple[str, str]]:
    """Cause and title of each error and warning, on a healthy H100 with an empty cache and no network."""
    launch = parse_line(line)
    assert launch.model is not None
    model = probe_model(launch.model, launch=launch, offline=True, variables={"HF_HOME": str(folder)}, folder=folder)
    made = diagnose(structs.replace(HEALTHY, launch=launch, model=model), REGISTRY)
    return [(f.cause, f.title) for f in made.findings if f.severity is not Severity.INFO]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vllm serve Qwen2-7B-Instruct --max-model-len 4096", [("model-not-found", "Qwen/Qwen2-7B-Instruct")]),
        ("vllm serve Mixtral-8x7B-Instruct", [("model-not-found", "mistralai/Mixtral-8x7B-Instruct-v0.1")]),
        ("vllm serve Meta-Llama-3-70B", [("model-not-found", "meta-llama/Meta-Llama-3-70B")]),
        (
            "vllm serve Qwen2-7B-Instruct --gpu-memory-utilization 0.9 --served-models a=X,b=Y --max-num-batches 8",
            [("bad-flag", "--max-num-batches"), ("bad-flag", "--served-models"), ("model-not-found", "Qwen2-7B")],
        ),
        (
            "VLLM_COMPILE=0 vllm serve Qwen2-7B-Instruct --enforce-eager",
            [("model-not-found", "Qwen2-7B"), ("bad-env-var", "VLLM_COMPILE")],
        ),
        (
            "python -m vllm.entrypoints.api_server --model Qwen2-7B-Instruct",
            [("bad-flag", "api_server"), ("model-not-found", "Qwen2-7B")],
        ),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else(line: str, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    found = said(line, tmp_path)
    assert [cause for cause, _ in found] == [cause for cause, _ in expected], found
    assert all(words in title for (_, title), (_, words) in zip(found, expected, strict=True)), found


def test_a_line_without_a_mistake_is_quiet() -> None:
    line = "HF_HUB_OFFLINE=1 vllm serve m --max-model-len 4096 --gpu-memory-utilization 0.9 --enforce-eager"
    launch = parse_line(line)
    made = diagnose(structs.replace(HEALTHY, launch=launch), REGISTRY)
    assert made.findings == ()


def test_a_retired_download_command_is_explained() -> None:
    with pytest.raises(LaunchError, match="--local-dir-use-symlinks is gone"):
        parse_line("huggingface-cli download Qwen/Qwen2-7B-Instruct --local-dir-use-symlinks False")
