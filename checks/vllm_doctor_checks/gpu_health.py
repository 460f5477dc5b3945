"""Checks of the GPUs' hardware, and of the fabric that joins them."""

from collections.abc import Iterator

from vllm_doctor.check import CUDA_ONLY, check, known
from vllm_doctor.facts import Gpu
from vllm_doctor.finding import Finding, Fix, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import devices


@check("gpu-fault", causes=("gpu-hardware-fault",), needs=("gpus",), platforms=CUDA_ONLY)
def gpu_fault(snapshot: Snapshot) -> Iterator[Finding]:
    """A GPU is lost, or counts memory errors that it could not correct.

    The driver counts uncorrected ECC errors since it was loaded, and replaces faulty rows of memory at the next reset.

    Why: a GPU that fell off the bus (Xid 79) answers nothing until the machine is restarted, and CUDA often fails on
    the others too. An uncorrected error ends the program that touches the row; a remapping that waits leaves the row in
    use, and one that failed means that the spare rows are used up.

    Fix: take the load off the GPU and reset it (`nvidia-smi --gpu-reset`), or restart the machine. Errors that come
    back, or a failed remapping: run NVIDIA's field diagnostic and have the board replaced.
    """
    for gpu in devices.answering(snapshot).devices:
        if gpu.lost is not None:
            yield _lost(gpu)
        else:
            yield from _memory_faults(gpu)


def _lost(gpu: Gpu) -> Finding:
    return error(
        "gpu-hardware-fault",
        f"GPU {gpu.index} does not answer any more: {gpu.lost}",
        evidence=(f"NVML on GPU {gpu.index}: {gpu.lost}",),
        fixes=(
            Fix(title="Read what the driver saw (Xid numbers)", command=("sudo", "dmesg", "--level=err,warn")),
            Fix(title="Restart the machine; if it comes back, reseat or replace the board", command=("sudo", "reboot")),
        ),
    )


def _memory_faults(gpu: Gpu) -> Iterator[Finding]:
    failed, pending = gpu.remapped_rows_failed, gpu.remapped_rows_pending
    if failed is True:
        yield _fault(gpu, "could not replace a faulty row of its memory", "remapping failure: yes", replace=True)
    elif pending is True:
        yield _fault(gpu, "waits for a reset to replace a faulty row of its memory", "remapping pending: yes")
    elif isinstance(gpu.ecc_uncorrected, int) and gpu.ecc_uncorrected:
        seen = f"uncorrected ECC errors since the driver was loaded: {gpu.ecc_uncorrected}"
        yield _fault(gpu, f"counts {gpu.ecc_uncorrected} memory errors that it could not correct", seen)
    # A fact that could not be had must not read as a sound board.
    for fact in (failed, pending, gpu.ecc_uncorrected):
        if fact is not None:
            known(fact)


def _fault(gpu: Gpu, what: str, seen: str, *, replace: bool = False) -> Finding:
    reset = ("sudo", "nvidia-smi", "--gpu-reset", "-i", str(gpu.index))
    fixes = [Fix(title="Stop what runs on it and reset the GPU, or restart the machine", command=reset)]
    if replace:
        fixes.insert(0, Fix(title="Run NVIDIA's field diagnostic and have the board replaced"))
    return warning(
        "gpu-hardware-fault",
        f"{devices.label(gpu)} {what}",
        evidence=(f"{devices.label(gpu)}: {seen}",),
        fixes=tuple(fixes),
    )


@check("fabric-manager", causes=("fabric-manager",), needs=("gpus",), platforms=CUDA_ONLY)
def fabric_manager(snapshot: Snapshot) -> Iterator[Finding]:
    """An NVSwitch machine whose fabric manager has not registered the GPUs.

    On HGX and DGX machines from Hopper on, NVML tells whether the fabric manager has set up the NVSwitches for a GPU.
    Older machines (A100) do not tell; there is no finding on them.

    Why: until it has, every CUDA start fails with "system not yet initialized" (error 802), and vLLM says that it found
    no GPU. The service must be of exactly the driver's version: an update of one without the other stops it.

    Fix: start the service `nvidia-fabricmanager`; where it stops at once, install the version of the driver.
    """
    gpus = devices.answering(snapshot)
    present = [g for g in gpus.devices if g.lost is None]
    waiting = tuple(g for g in present if known(g.fabric_state) in ("not-started", "in-progress"))
    if not waiting:
        return
    driver = known(gpus.driver_version)
    branch = driver.partition(".")[0]
    states = " and ".join(sorted({str(g.fabric_state) for g in waiting}))
    # One GPU handed into a virtual machine has no fabric manager beside it: there the cure is to do without NVLink.
    alone = len(present) == 1
    report = warning if alone else error
    single = "For a single GPU of such a host in a virtual machine, load the driver with NVreg_NvLinkDisable=1"
    yield report(
        "fabric-manager",
        f"The fabric manager has not set up {len(waiting)} of {len(present)} GPUs (registration {states})",
        evidence=(f"{devices.labels(waiting)}: fabric registration {states}", f"driver: {driver}"),
        fixes=(
            Fix(title="Start it", command=("sudo", "systemctl", "enable", "--now", "nvidia-fabricmanager")),
            Fix(title="Where it stops at once, see why", command=("journalctl", "-u", "nvidia-fabricmanager", "-e")),
            Fix(title=f"Install the version that equals the driver's: nvidia-fabricmanager-{branch}, version {driver}"),
            *((Fix(title=single),) if alone else ()),
        ),
    )
