"""Checks of the GPUs' memory: what a launch will take, and who holds it."""

import math
from collections.abc import Iterable, Iterator

from vllm_doctor.check import CUDA_ONLY, NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Gpu, GpuProcess, Launch, ProcessRole, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import devices

# torch's total memory is up to 3 % below NVML's (T4: 14.6 of 15.0 GiB, H100: 79.2 of 79.6), and a context takes 0.3 to
# 0.6 GiB before vLLM looks: below 97 % of the demand the start fails for certain, up to 100 % it is likely.
_CERTAIN_SHARE = 0.97
_CONTEXT_BYTES = 0.6 * 2**30

_LEAST_UTILIZATION = 0.1


@check("gpu-busy", causes=("gpu-busy",), needs=("gpus", "launch"), platforms=CUDA_ONLY)
def gpu_busy(snapshot: Snapshot) -> Iterator[Finding]:
    """Less GPU memory is free than the launch is told to take.

    vLLM takes the share `--gpu-memory-utilization` of each GPU's whole memory (0.9 to release 0.19.1, 0.92 from
    0.20.0), not of what is free.

    Why: the worker compares before it loads a weight, and ends with "Free memory on device ... is less than desired GPU
    memory utilization" (vllm/v1/worker/utils.py, request_memory; from 0.9.0. Older releases run out of memory later). A
    GPU in exclusive mode that another process has takes no second one at all (CUDA error 46).

    Fix: end what holds the memory, use other GPUs, or lower `--gpu-memory-utilization` below what is free.
    """
    gpus = devices.answering(snapshot)
    launch = snapshot.launch
    assert launch is not None
    used = devices.used(snapshot, gpus)
    if not used:
        raise NotApplicable("no GPU is visible to the launch")
    yield from _not_shared(used)
    if any(g.mig_enabled is True for g in used):
        raise NotApplicable("the launch runs on a MIG instance")
    share = _utilization(snapshot, launch)
    short = tuple(g for g in used if known(g.memory_free_bytes) < share * known(g.memory_total_bytes))
    if short:
        yield _too_little(snapshot, launch, used, short, share)


def _not_shared(gpus: tuple[Gpu, ...]) -> Iterator[Finding]:
    for gpu in gpus:
        if gpu.compute_mode == "prohibited":
            title = f"{devices.label(gpu)} is in compute mode prohibited: no program may use it"
        elif gpu.compute_mode == "exclusive-process" and known(gpu.processes):
            title = f"{devices.label(gpu)} is in exclusive mode, and another process has it"
        else:
            continue
        command = ("sudo", "nvidia-smi", "-i", str(gpu.index), "--compute-mode", "DEFAULT")
        yield error(
            "gpu-busy",
            title,
            evidence=(f"compute mode: {gpu.compute_mode}", *_holders((gpu,))),
            fixes=(Fix(title="Let programs share the GPU", command=command),),
        )


def _utilization(snapshot: Snapshot, launch: Launch) -> float:
    given = launch.value("--gpu-memory-utilization")
    if given is not None:
        try:
            share = float(given)
        except ValueError:
            share = math.nan
        if not 0 < share <= 1:
            raise NotApplicable(f"--gpu-memory-utilization {given} is no share")
        return share
    return 0.92 if _is_at_least(snapshot.vllm_version, (0, 20)) else 0.9


def _is_at_least(version: str | None, wanted: tuple[int, int]) -> bool:
    # An image without a release in its tag (`latest`): the smaller demand cannot alarm falsely.
    if version is None:
        return False
    major, minor, *_ = [*version.split("."), "0"]
    if not (major.isdecimal() and minor.isdecimal()):
        raise NotKnown(f"the version of vLLM, {version!r}, cannot be read")
    return (int(major[:6]), int(minor[:6])) >= wanted


def _too_little(
    snapshot: Snapshot, launch: Launch, used: tuple[Gpu, ...], short: tuple[Gpu, ...], share: float
) -> Finding:
    worst = min(short, key=lambda g: known(g.memory_free_bytes) - share * known(g.memory_total_bytes))
    free, total = known(worst.memory_free_bytes), known(worst.memory_total_bytes)
    wanted = share * total
    title = (
        f"Only {devices.gib(free)} of {devices.label(worst)} are free, and vLLM is told to take {devices.gib(wanted)}"
    )
    evidence = [f"{devices.label(g)}: {devices.gib(known(g.memory_free_bytes))} free of {_size(g)}" for g in short]
    stated = "given" if launch.has("--gpu-memory-utilization") else "the default of this release"
    evidence.append(f"--gpu-memory-utilization {share:g} ({stated}): {devices.gib(wanted)}")
    evidence += _holders(short)
    fixes = _fixes(snapshot, used, short, share)
    compared = snapshot.vllm_version is None or _is_at_least(snapshot.vllm_version, (0, 9))
    if free < wanted * _CERTAIN_SHARE and compared:
        return error("gpu-busy", title, evidence=tuple(evidence), fixes=fixes)
    return warning("gpu-busy", title, evidence=tuple(evidence), fixes=fixes)


def _size(gpu: Gpu) -> str:
    return devices.gib(known(gpu.memory_total_bytes))


def _fixes(snapshot: Snapshot, used: tuple[Gpu, ...], short: tuple[Gpu, ...], share: float) -> tuple[Fix, ...]:
    fixes = [kill(orphans)] if (orphans := _orphans(short)) else []
    if others := _free_instead(snapshot, len(used), share):
        edit = LaunchEdit(env={"CUDA_VISIBLE_DEVICES": ",".join(str(g.index) for g in others)})
        fixes.append(Fix(title=f"Use {devices.labels(others)}, which have the memory", launch=edit, automatic=True))
    fits = min((known(g.memory_free_bytes) - _CONTEXT_BYTES) / known(g.memory_total_bytes) for g in short)
    lowered = math.floor(fits * 100) / 100
    if lowered >= _LEAST_UTILIZATION:
        edit = LaunchEdit(set={"--gpu-memory-utilization": f"{lowered:.2f}"})
        fixes.append(Fix(title=f"Take no more than what is free: {lowered:.2f}", launch=edit, automatic=True))
    fixes.append(Fix(title="Or end what holds the memory"))
    return tuple(fixes)


def _free_instead(snapshot: Snapshot, count: int, share: float) -> tuple[Gpu, ...]:
    """As many other GPUs of one kind with enough free memory; none for a container, which names its own."""
    gpus = devices.answering(snapshot).devices
    if devices.in_container(snapshot) or len({g.name for g in gpus}) > 1:
        return ()
    enough = [g for g in gpus if _has(g, share)]
    return tuple(enough[:count]) if len(enough) >= count else ()


def _has(gpu: Gpu, share: float) -> bool:
    total, free = gpu.memory_total_bytes, gpu.memory_free_bytes
    return isinstance(total, int) and isinstance(free, int) and not gpu.mig_enabled and free >= share * total


@check("stray-process", causes=("gpu-busy",), needs=("gpus",), platforms=CUDA_ONLY)
def stray_process(snapshot: Snapshot) -> Iterator[Finding]:
    """Workers of a vLLM server that is gone still hold GPU memory.

    An engine core or worker whose server was killed (SIGKILL, the out-of-memory killer, a closed terminal) is adopted
    by init and lives on; its title is `VLLM::EngineCore` or `VLLM::Worker`.

    Why: it holds the memory for ever and serves nobody; the next launch finds too little free.

    Fix: end the processes that are named; the memory is free a moment later. The doctor does not do it by itself.
    """
    gpus = [g for g in devices.answering(snapshot).devices if g.lost is None]
    if orphans := _orphans(gpus):
        held = _held(orphans)
        number = len({p.pid for _, p in orphans})
        where = devices.labels(tuple({g.index: g for g, _ in orphans}.values()))
        what = "An orphaned vLLM process holds" if number == 1 else f"{number} orphaned vLLM processes hold"
        yield warning(
            "gpu-busy",
            f"{what} {held} of {where}",
            evidence=tuple(dict.fromkeys(_described(g, p) for g, p in orphans)),
            fixes=(kill(orphans),),
        )
    for gpu in gpus:
        known(gpu.processes)


Holder = tuple[Gpu, GpuProcess]


def _orphans(gpus: Iterable[Gpu]) -> list[Holder]:
    return [
        (g, p)
        for g in gpus
        if not isinstance(g.processes, Unknown)
        for p in g.processes
        if p.role is ProcessRole.VLLM_ORPHAN
    ]


def kill(orphans: list[Holder]) -> Fix:
    """The fix that ends them; never automatic."""
    pids = tuple(str(pid) for pid in dict.fromkeys(p.pid for _, p in orphans))
    return Fix(title="End the orphaned vLLM processes", command=("kill", *pids))


def _held(holders: list[Holder]) -> str:
    sizes = [p.used_bytes for _, p in holders]
    return (
        "memory"
        if any(isinstance(s, Unknown) for s in sizes)
        else devices.gib(sum(s for s in sizes if isinstance(s, int)))
    )


def _holders(gpus: tuple[Gpu, ...]) -> list[str]:
    lines = []
    for gpu in gpus:
        if isinstance(gpu.processes, Unknown):
            lines.append(f"GPU {gpu.index}: who holds the memory is not known: {gpu.processes.reason}")
            continue
        lines += [_described(gpu, p) for p in gpu.processes]
    return lines


def _described(gpu: Gpu, process: GpuProcess) -> str:
    size = "memory" if isinstance(process.used_bytes, Unknown) else devices.gib(process.used_bytes)
    if not process.visible:
        return f"GPU {gpu.index}: pid {process.pid}, outside of this container, holds {size}"
    user = "" if isinstance(process.user, Unknown) else f" of {process.user}"
    age = "" if isinstance(process.age_seconds, Unknown) else f", {_age(process.age_seconds)} old"
    parent = f", parent {process.parent_pid}" if process.role is ProcessRole.VLLM_ORPHAN else ""
    command = "" if isinstance(process.command, Unknown) else f": {process.command[:120]}"
    return f"GPU {gpu.index}: pid {process.pid}{user}{age}{parent} holds {size}{command}"


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
