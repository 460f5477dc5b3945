"""The canary: a tiny model in the package whose right answers are known, and the launch that serves it.

`scripts/make_canary.py` writes the model folder and says how it works.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_doctor.errors import DoctorError

if TYPE_CHECKING:
    from vllm_doctor.releases.facts import Flag

NAME = "canary"
"""The name that it is served under."""

REVISION = "1803c714721df215"
"""The first 16 digits of the SHA-256 of the model's files, as `scripts/make_canary.py` prints it."""

SENTENCE = (
    "The canary is singing: each kernel here computed what it should, "
    "every cached key was read back, and all links held."
)
"""The answer to any chat without an assistant's turn in it."""

TOOL_CALL: tuple[str, Mapping[str, Any]] = ("get_weather", {"city": "Paris"})
"""The answer to any chat with `tools()`: the function's name and the arguments."""

CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
"""The same as the model writes it, between `<tool_call>` and `</tool_call>`: what a wrong parser leaves in the text."""

MAX_MODEL_LEN = 2048
MAX_NUM_SEQS = 16
PARALLEL = (1, 2, 4, 8)
"""The tensor parallel sizes that divide its heads, widths and vocabulary."""

FIRST_RELEASE = "0.5.3"
"""`vllm serve` is there from it on, and Llama models whose heads are not hidden size / heads wide (vLLM #6548)."""

# CUDA context, communication buffers, workspaces, graphs, 134 MB of cache for 16 requests: generous, not measured.
GPU_BYTES = 6 * 2**30


class CanaryError(DoctorError):
    """The canary cannot be launched as asked."""


def folder() -> Path:
    """The model's folder; raises CanaryError where the package lies in an archive, which vLLM could not read."""
    found = Path(str(files(__package__) / "model"))
    if not (found / "config.json").is_file():
        raise CanaryError("the canary's files are not on disk", "install vllm-doctor unpacked (pip install)")
    return found


def require_release(version: str | None) -> None:
    """Raise CanaryError for a release that is known to be too old to serve it."""
    from packaging.version import InvalidVersion, Version

    try:
        too_old = version is not None and Version(version) < Version(FIRST_RELEASE)
    except InvalidVersion:
        return
    if too_old:
        raise CanaryError(f"vLLM {version} cannot serve the canary", f"it takes {FIRST_RELEASE} or newer")


def tools() -> list[dict[str, Any]]:
    """The tools to send."""
    # Not above: HTTP is not needed, nor wanted in memory, while the server starts.
    from vllm_doctor.client.calling import TOOLS

    return TOOLS


def flags(
    platform: str,
    *,
    tp: int = 1,
    known: Mapping[str, Flag] | None = None,
    gpu_bytes: int | None = None,
) -> tuple[str, ...]:
    """The flags of `vllm serve MODEL`; `known` leaves out those that the release lacks, `gpu_bytes`: one GPU's memory.

    Raises CanaryError for a parallel size that does not divide the model.
    """
    if tp not in PARALLEL:
        raise CanaryError(f"the canary cannot be cut into {tp}", f"--tp takes {', '.join(map(str, PARALLEL))}")
    wanted: dict[str, str | None] = {
        "--served-model-name": NAME,
        "--max-model-len": str(MAX_MODEL_LEN),
        "--max-num-seqs": str(MAX_NUM_SEQS),
        "--tensor-parallel-size": str(tp),
        "--enable-auto-tool-choice": None,
        "--tool-call-parser": "hermes",
    }
    if platform == "cpu":
        wanted["--enforce-eager"] = None
    elif gpu_bytes:
        wanted["--gpu-memory-utilization"] = f"{min(0.9, max(0.03, GPU_BYTES / gpu_bytes)):.3f}"
    if tp == 1:
        del wanted["--tensor-parallel-size"]
    return tuple(
        word
        for name, value in wanted.items()
        if known is None or name in known
        for word in (name, value)
        if word is not None
    )


def variables(platform: str, *, tp: int = 1) -> dict[str, str]:
    """The environment of its launch: no network, and on a CPU a small cache and one core or more for each rank."""
    found = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if platform == "cpu":
        found["VLLM_CPU_KVCACHE_SPACE"] = "1"
    if platform == "cpu" and tp > 1:
        # Without it: "Not enough allowed NUMA nodes to bind threads" (vllm/v1/worker/cpu_worker.py, 0.32).
        found["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(_cores(tp))
    return found


def _cores(ranks: int) -> list[str]:
    """A list of cores for each rank; raises CanaryError where there are fewer cores than ranks."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < ranks:
        raise CanaryError(f"{ranks} ranks need {ranks} processor cores, and {len(cores)} may be used", "a smaller --tp")
    share = len(cores) // ranks
    return [",".join(map(str, cores[rank * share : (rank + 1) * share])) for rank in range(ranks)]
