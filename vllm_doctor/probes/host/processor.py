"""The processor: its name, and the vector extensions that kernels are built for."""

import os

from vllm_doctor.facts import Unknown
from vllm_doctor.probes.host import files

# One processor's paragraph is 2 to 4 kB; the kernel makes the others only as far as the file is read.
MAXIMUM_BYTES = 16_384

# The flags, as Linux spells them, that builds of PyTorch and vLLM choose their kernels by (vLLM 0.32
# `platforms/cpu.py: import_kernels`, PyTorch `aten/src/ATen/cpu/Utils.cpp`), and the baselines below them.
VECTOR_FLAGS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
    *("vx", "vxe", "vxe2"),
)


def model_and_extensions(cpuinfo: bytes) -> tuple[str | Unknown, tuple[str, ...] | Unknown]:
    """The name and the vector flags of the first processor of a /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.decode("utf-8", "replace").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    model = fields.get("model name") or fields.get("cpu") or fields.get("uarch") or fields.get("processor 0")
    flags = next((fields[key] for key in ("flags", "features", "isa") if key in fields), None)
    return (
        model[:200] if model else Unknown("/proc/cpuinfo names no model"),
        Unknown("/proc/cpuinfo lists no extensions") if flags is None else _vector(flags),
    )


def _vector(flags: str) -> tuple[str, ...]:
    present = set(flags.split())
    return tuple(flag for flag in VECTOR_FLAGS if flag in present)


def read() -> tuple[str | Unknown, tuple[str, ...] | Unknown]:
    """The name and the vector flags of this machine's processor."""
    data = files.head("/proc/cpuinfo", MAXIMUM_BYTES)
    if data is None:
        return Unknown("this system has no /proc/cpuinfo"), Unknown("this system has no /proc/cpuinfo")
    return model_and_extensions(data)


def usable_count() -> int:
    """The processors that this process may run on, as vLLM counts them (0.32 `platforms/cpu.py: get_max_threads`)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
