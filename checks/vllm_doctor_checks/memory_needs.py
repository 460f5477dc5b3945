"""What a launch takes of the host's RAM and of the disk: lower bounds that hold, and what is likely."""

import math
from typing import NamedTuple

from vllm_doctor.check import NotApplicable, NotKnown, known
from vllm_doctor.facts import Host, Launch, Model, Unknown
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launch_values import GIB, MIB, gib, release_of, setting, workers

# Measured on vLLM 0.32.0 for CPU serving a 1 MB model: private memory of API server, engine core and worker 431, 398
# and 400 MB, with the libraries' pages 2.0 GB; address space of the worker 2.3 GiB, each without the KV cache.
OWN_BYTES = 1150 * MIB
OWN_LIKELY_BYTES = 1900 * MIB
OWN_ADDRESS_SPACE_BYTES = 2200 * MIB

# vLLM's CPU worker sizes the KV cache by --gpu-memory-utilization from 0.20.0 (`v1/worker/cpu_worker.py`), where the
# default of that flag became 0.92.
SHARE_FROM = (0, 20, 0)
DEFAULT_SHARE = 0.92

# Without VLLM_CPU_KVCACHE_SPACE older releases took 4 GiB (0.5.0 - 0.12.0), then half of what is free.
OLD_CACHE_BYTES = 4 * GIB
HALF_OF_FREE_FROM = (0, 13, 0)


class Share(NamedTuple):
    """What vLLM's CPU worker will want of RAM, against what is there."""

    wanted_bytes: int
    available_bytes: int
    total_bytes: int
    rule: str
    place: str
    fitting_gib: int


class Needs(NamedTuple):
    """RAM that a launch takes: `certain_bytes` at least, `likely_bytes` as measured; `parts` say of what."""

    certain_bytes: int
    likely_bytes: int
    address_space_bytes: int
    cache_bytes: int
    offload_bytes: int
    parts: tuple[str, ...]


def of(snapshot: Snapshot, host: Host, launch: Launch) -> Needs:
    """The RAM that the launch takes; weights and KV cache count on a CPU build only."""
    on_cpu = snapshot.platform == "cpu"
    cache = _fixed_cache_bytes(host, launch) or 0 if on_cpu else 0
    weights = _weights_bytes(snapshot.model) if on_cpu else 0
    offload = _offload_bytes(launch)
    extra = cache + weights + offload
    parts = [f"the server's own processes: {gib(OWN_BYTES)} to {gib(OWN_LIKELY_BYTES)}"]
    for name, size in (("weights", weights), ("KV cache", cache), ("offloaded weights", offload)):
        if size:
            parts.append(f"{name}: {gib(size)}")
    return Needs(
        certain_bytes=OWN_BYTES + extra,
        likely_bytes=OWN_LIKELY_BYTES + extra,
        address_space_bytes=OWN_ADDRESS_SPACE_BYTES + cache + weights,
        cache_bytes=cache,
        offload_bytes=offload,
        parts=tuple(parts),
    )


def limit(host: Host) -> tuple[int, str]:
    """The RAM that there is at most, and what sets it."""
    total = known(host.memory_total_bytes)
    limited = None if host.cgroup_limit_bytes is None else known(host.cgroup_limit_bytes)
    if limited is not None and limited < total:
        return limited, "container's memory limit" if host.container else "control group's memory limit"
    return total, "machine's RAM"


def cpu_share(snapshot: Snapshot, host: Host, launch: Launch) -> Share | None:
    """The memory check of vLLM's CPU worker at its start; None for a release or launch without it.

    With a fixed KV cache only that must be available; else the share of all memory (of the node) must.
    """
    release = release_of(snapshot)
    if release is None:
        raise NotKnown("the release of vLLM is not known, and releases size the KV cache differently")
    if release < SHARE_FROM:
        return None
    total, available, place = _node(host)
    fixed = _fixed_cache_bytes(host, launch)
    weights = _weights_bytes(snapshot.model) // workers(launch)
    fitting = max(0, (available - OWN_LIKELY_BYTES - weights) // GIB)
    if fixed is not None:
        return Share(fixed, available, total, "fixed size of the KV cache", place, min(fitting, fixed // GIB))
    share = _share(launch)
    wanted = math.ceil(total * share)
    return Share(wanted, available, total, f"--gpu-memory-utilization {share:g} of {gib(total)}", place, fitting)


def _node(host: Host) -> tuple[int, int, str]:
    """Total and available as the worker counts them: of the first memory node, within the container's limit."""
    if host.memory_nodes:
        node = host.memory_nodes[0]
        total, available, place = node.total_bytes, node.available_bytes, f"memory node {node.number}"
    else:
        total, available, place = known(host.memory_total_bytes), known(host.memory_available_bytes), "machine"
    if host.cgroup_limit_bytes is not None and (limited := known(host.cgroup_limit_bytes)) < total:
        used = 0 if host.cgroup_used_bytes is None else known(host.cgroup_used_bytes)
        return limited, max(0, min(available, limited - used)), "container's memory limit"
    return total, available, place


def _share(launch: Launch) -> float:
    given = launch.value("--gpu-memory-utilization")
    try:
        share = float(given) if given is not None else DEFAULT_SHARE
    except ValueError:
        share = DEFAULT_SHARE
    return share if 0 < share <= 1 else DEFAULT_SHARE


def _fixed_cache_bytes(host: Host, launch: Launch) -> int | None:
    """The size of a CPU build's KV cache where it is given (VLLM_CPU_KVCACHE_SPACE wins over the flag)."""
    space = setting(host, launch, "VLLM_CPU_KVCACHE_SPACE") or ""
    if space.isascii() and space.isdecimal() and len(space) < 7:
        return int(space) * GIB
    if space.strip():
        # env-value says so; vLLM ends before it looks at the memory.
        raise NotApplicable(f"VLLM_CPU_KVCACHE_SPACE {space} is no number of GiB")
    return launch.number("--kv-cache-memory-bytes")


def _offload_bytes(launch: Launch) -> int:
    """RAM for weights of all GPUs (`--cpu-offload-gb`: GiB per GPU)."""
    given = launch.value("--cpu-offload-gb")
    try:
        size = float(given) if given is not None else 0.0
    except ValueError:
        return 0
    return int(size * GIB) * workers(launch) if 0 < size < 1e6 else 0


def _weights_bytes(model: Model | Unknown | None) -> int:
    """What the weights take in RAM at least: those stored as float32 are loaded as 16 bit unless told otherwise."""
    if not isinstance(model, Model):
        return 0
    total = 0
    for file in model.weight_files:
        if file.format != "safetensors" or not isinstance(file.size_bytes, int):
            continue
        total += file.size_bytes // 2 if {"F32", "F64"} & set(file.dtypes) else file.size_bytes
    return total


def download_bytes(model: Model) -> int:
    """The weights that vLLM downloads: the safetensors, where there are none those of PyTorch.

    vLLM 0.32 `model_executor/model_loader/default_loader.py: _prepare_weights` takes the first pattern that matches.
    """
    for format_name in ("safetensors", "pytorch"):
        sizes = [known(f.size_bytes) for f in model.weight_files if f.format == format_name]
        if sizes:
            return sum(sizes)
    raise NotKnown("the sizes of the model's weight files are not known")
