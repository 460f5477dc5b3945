"""The root causes that the doctor names: their ids in order, and one page each (`<id>.md` beside this file)."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

# The groups and ids of the public catalogue, root causes first: an earlier one explains a later one.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "GPU and driver": (
        "driver-library-mismatch",
        "driver-too-old",
        "gpu-not-visible",
        "fabric-manager",
        "gpu-hardware-fault",
        "arch-unsupported",
        "feature-needs-newer-gpu",
        "gpu-busy",
    ),
    "Python environment": (
        "python-unsupported",
        "platform-unsupported",
        "broken-install",
        "torch-vllm-mismatch",
        "cuda-wheel-mismatch",
        "torch-companion-mismatch",
        "flash-attn-mismatch",
        "flashinfer-mismatch",
        "transformers-mismatch",
        "dependency-conflict",
        "build-toolchain",
        "caller-version-mismatch",
    ),
    "Launch": (
        "bad-flag",
        "flag-conflict",
        "bad-env-var",
        "attention-backend",
        "port-in-use",
    ),
    "Model": (
        "model-not-found",
        "model-access",
        "hub-unreachable",
        "model-files-incomplete",
        "model-arch-unsupported",
        "quantization-unsupported",
        "tokenizer-broken",
        "trust-remote-code",
        "max-len-over-model",
        "lora-config",
    ),
    "Parallelism": (
        "tp-divisibility",
        "gpu-count",
        "nccl-failure",
        "ray-cluster",
        "multiprocessing-start",
    ),
    "Memory": (
        "oom-weights",
        "oom-kv",
        "oom-activation",
        "oom-cudagraph",
        "oom-serving",
        "host-memory",
        "shm-too-small",
        "disk-full",
    ),
    "Requests": (
        "model-name-mismatch",
        "tools-not-enabled",
        "tool-parser-wrong",
        "chat-template-missing",
        "chat-roles",
        "context-exceeded",
        "bad-request",
        "auth",
        "endpoint-wrong",
        "connection-refused",
        "connection-timeout",
        "multimodal-unsupported",
    ),
    "Other": (
        "vllm-bug",
        "cuda-kernel-crash",
        "engine-hang",
        "engine-dead",
    ),
}


@lru_cache(maxsize=1)
def catalogue() -> Mapping[str, str]:
    """Every cause id, in order, with the name of its group."""
    return {cause: group for group, members in GROUPS.items() for cause in members}


@lru_cache(maxsize=1)
def _places() -> Mapping[str, int]:
    return {cause: place for place, cause in enumerate(catalogue())}


def order(cause: str) -> int:
    """The place of a cause among all: root causes before their consequences, plugins' own causes last."""
    return _places().get(cause, len(_places()))


def page(cause: str) -> str:
    """The page of a cause as Markdown; raises KeyError for one that is not in the catalogue."""
    if cause not in catalogue():
        raise KeyError(cause)
    return (Path(__file__).parent / f"{cause}.md").read_text(encoding="utf-8")
