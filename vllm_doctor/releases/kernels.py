"""Which GPUs the wheels have machine code for.

Source: the `.nv_fatbin` headers of the wheels named below, read once (magic 0xBA55ED50, entry kind 2 = machine code,
architecture at byte 28). A release between two that were read has the architectures of the one before it; the torch
wheels of one CUDA version that were read agree with each other.
"""

from __future__ import annotations

from collections.abc import Sequence

VLLM_WHEELS: tuple[tuple[str, str], ...] = (
    ("0.4.0", "7.0 7.5 8.0 8.6 8.9 9.0"),
    ("0.9.0", "7.0 7.5 8.0 8.7 8.9 9.0 10.0"),
    ("0.9.2", "7.0 7.5 8.0 8.7 8.9 9.0 10.0 12.0"),
    ("0.11.0", "7.0 7.5 8.0 8.9 9.0 10.0 12.0"),
    ("0.20.0", "7.5 8.0 8.6 8.9 9.0 10.0 12.0"),
)
"""First release of an era and its architectures. Read: 0.4.2, 0.6.6, 0.8.5; 0.9.2, 0.10.0; 0.11.2, 0.13.0, 0.19.1;
0.20.2, 0.26.0, 0.33.0. An era starts with the release whose Dockerfile changed `torch_cuda_arch_list`
(0.9.0 and 0.9.1: 10.0+PTX, no 12.0) or whose wheel first showed the change."""

TORCH_WHEELS: tuple[tuple[str, str], ...] = (
    ("12.1", "5.0 6.0 7.0 7.5 8.0 8.6 9.0"),
    ("12.4", "5.0 6.0 7.0 7.5 8.0 8.6 9.0"),
    ("12.6", "5.0 6.0 7.0 7.5 8.0 8.6 9.0"),
    ("12.8", "7.0 7.5 8.0 8.6 9.0 10.0 12.0"),
    ("13.0", "7.5 8.0 8.6 9.0 10.0 12.0"),
    ("13.2", "7.5 8.0 8.6 9.0 10.0 12.0"),
)
"""By CUDA version of the default wheel; architectures that only some kernels have (8.9, 10.3, 12.1) are left out."""

TORCH_WHEELS_READ = frozenset({"2.4.0", "2.6.0", "2.7.0", "2.8.0", "2.10.0", "2.11.0", "2.14.0"})


def kernel_architectures(version: str, known: Sequence[str]) -> tuple[str, ...]:
    """Compute capabilities with machine code in a vLLM wheel; `known`: all releases, oldest first."""
    position = known.index(version)
    eras = [architectures for first, architectures in VLLM_WHEELS if known.index(first) <= position]
    return tuple(eras[-1].split())


def torch_architectures(cuda: str | None) -> tuple[str, ...]:
    """Compute capabilities with kernels in the default torch wheel of a CUDA version; empty when none was read."""
    return tuple(dict(TORCH_WHEELS).get(cuda or "", "").split())
