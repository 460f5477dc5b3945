"""The NVIDIA GPUs as an environment report shows them; capability and memory are those of boards of that name."""

from vllm_doctor import hardware
from vllm_doctor.facts import Gpu, Gpus, MigDevice, NvmlFailure, NvmlUnavailable, Unknown
from vllm_doctor.probes.env_report.text import GpuLine, Report, is_version
from vllm_doctor.probes.env_report.words import NOT_SAID, UNSAID


def gpus(report: Report) -> Gpus | NvmlUnavailable | Unknown:
    """The driver and the GPUs; NvmlUnavailable where nvidia-smi had no answer and torch saw no GPU either."""
    driver = report.fields.get("nvidia driver version", "").split(" ")[0]
    if report.gpus:
        devices = tuple(_gpu(line, report) for line in report.gpus)
        return Gpus(driver_version=driver if is_version(driver) else UNSAID, cuda_version=UNSAID, devices=devices)
    if report.other_gpu is not None:
        return Unknown(f"the environment report names a GPU that is not NVIDIA's: {report.other_gpu}")
    if _sees_nothing(report):
        return NvmlUnavailable(
            failure=NvmlFailure.OTHER,
            detail="nvidia-smi had no answer when the environment report was written, and torch saw no GPU",
        )
    return UNSAID


def _sees_nothing(report: Report) -> bool:
    """A torch for CUDA, no GPU for torch, and no answer from nvidia-smi (collect_env: "Could not collect")."""
    return (
        "cuda used to build pytorch" in report.fields
        and report.fields.get("is cuda available", "").lower() in ("false", "no")
        and {"gpu models and configuration", "nvidia driver version"} <= report.unanswered
    )


def _gpu(line: GpuLine, report: Report) -> Gpu:
    memory = hardware.memory_bytes(line.name)
    reason = f"the environment report does not say, and the name {line.name!r} does not tell"
    return Gpu(
        index=line.index,
        name=line.name,
        uuid=NOT_SAID,
        lost=None,
        compute_capability=hardware.compute_capability(line.name) or Unknown(reason),
        memory_total_bytes=memory if memory is not None else Unknown(reason),
        memory_used_bytes=UNSAID,
        memory_free_bytes=UNSAID,
        mig_enabled=True if line.mig_profiles else UNSAID,
        mig_devices=tuple(_mig(profile) for profile in line.mig_profiles),
        ecc_uncorrected=UNSAID,
        remapped_rows_pending=UNSAID,
        remapped_rows_failed=UNSAID,
        persistence=UNSAID,
        compute_mode=UNSAID,
        pcie_generation=UNSAID,
        pcie_generation_max=UNSAID,
        pcie_width=UNSAID,
        pcie_width_max=UNSAID,
        nvlinks_active=_nvlinks(report.topology.get(line.index, ())),
        processes=UNSAID,
        fabric_state=UNSAID,
    )


def _mig(profile: str) -> MigDevice:
    return MigDevice(name=profile, uuid=NOT_SAID, memory_total_bytes=UNSAID, memory_free_bytes=UNSAID)


def _nvlinks(links: tuple[str, ...]) -> int | Unknown:
    """The links of one GPU: none where every path is PCIe; `NV4` between two GPUs are four; among more the matrix does
    not tell a switch, where the same links lead everywhere, from direct links, which add up."""
    counts = [link[2:] for link in links if link.startswith("NV") and link[2:].isdecimal() and len(link) < 6]
    if links and not counts:
        return 0
    return int(counts[0]) if len(links) == 1 else UNSAID
