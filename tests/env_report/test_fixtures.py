"""Every recorded report, read into the facts that it states."""

from pathlib import Path

import pytest

from vllm_doctor.facts import Environment, Gpu, Gpus, Host, NvmlFailure, NvmlUnavailable, Unknown
from vllm_doctor.probes.env_report import read_env_report
from vllm_doctor.probes.env_report.words import NOT_SAID, UNSAID
from vllm_doctor.snapshot import Snapshot

FOLDER = Path(__file__).parents[2] / "fixtures" / "env_reports"

FIXTURES = sorted(p.name for p in FOLDER.iterdir() if p.name != "README.md")


def reported(name: str) -> Snapshot:
    return read_env_report((FOLDER / name).read_text(encoding="utf-8"))


def environment_of(snapshot: Snapshot) -> Environment:
    assert isinstance(snapshot.environment, Environment)
    return snapshot.environment


def host_of(snapshot: Snapshot) -> Host:
    assert isinstance(snapshot.host, Host)
    return snapshot.host


def gpus_of(snapshot: Snapshot) -> Gpus:
    assert isinstance(snapshot.gpus, Gpus)
    return snapshot.gpus


# File -> Python, torch with its CUDA and what torch said of CUDA, vLLM with its platform, kind of environment.
ENVIRONMENTS = {
    "issue-l40s-vgpu.md": ("3.11.9", "2.4.0+cu121", "cuda", "12.1", True, "0.5.4", "cuda", "unknown"),
    "torch-2.13-cpu.txt": ("3.11.7", "2.13.0+cpu", "cpu", None, False, None, None, "unknown"),
    "torch-2.5-cu118-v100s.txt": ("3.10.15", "2.5.1+cu118", "cuda", "11.8", True, None, None, "unknown"),
    "vllm-0.10-no-driver.txt": ("3.12.11", "2.7.1+cu126", "cuda", "12.6", False, "0.10.0", "cuda", "unknown"),
    "vllm-0.11-two-h100-nvl.txt": ("3.10.12", "2.8.0+cu128", "cuda", "12.8", True, "0.11.0", "cuda", "uv"),
    "vllm-0.15-jetson-thor.txt": ("3.12.3", "2.10.0+cu130", "cuda", "13.0", True, "0.15.1", "cuda", "unknown"),
    "vllm-0.20-xpu-arc-b60.txt": ("3.12.3", "2.11.0+xpu", "xpu", None, None, "0.20.2", "xpu", "unknown"),
    "vllm-0.32-cpu.txt": ("3.11.7", "2.13.0+cpu", "cpu", None, None, "0.32.0", UNSAID, "unknown"),
    "vllm-0.5-four-a10-driver-470.txt": ("3.12.4", "2.4.0+cu121", "cuda", "12.1", True, "0.5.5", "cuda", "conda"),
    "vllm-0.5-rocm-mi300x.txt": (
        *("3.9.19", "2.3.0a0+git2e4abc8", "rocm", None),
        *(True, "0.5.3.post1+rocm614", "rocm", "unknown"),
    ),
    "vllm-0.8-macos.txt": ("3.12.7", "2.5.1", "cpu", None, False, "0.7.4.dev497+ga73e183e", UNSAID, "unknown"),
    "vllm-0.6-driver-too-old.txt": ("3.8.17", "2.4.0+cu121", "cuda", "12.1", False, "0.6.3.post1", "cuda", "unknown"),
}


@pytest.mark.parametrize("name", FIXTURES)
def test_environment(name: str) -> None:
    found = environment_of(reported(name))
    torch, vllm = found.torch, found.vllm
    assert torch is not None
    assert (
        found.python_version,
        torch.version,
        torch.platform,
        torch.cuda,
        torch.cuda_available,
        None if vllm is None else vllm.version,
        None if vllm is None else vllm.platform,
        found.kind,
    ) == ENVIRONMENTS[name]
    assert not found.complete


# File -> driver, and name, capability, MiB and NVLinks of the first GPU, and how many GPUs.
GPUS = {
    "issue-l40s-vgpu.md": ("535.129.03", "NVIDIA L40S-48C", "8.9", None, 0, 3),
    "torch-2.5-cu118-v100s.txt": ("535.171.04", "Tesla V100S-PCIE-32GB", "7.0", 32768, None, 4),
    "vllm-0.11-two-h100-nvl.txt": ("575.51.03", "NVIDIA H100 NVL", "9.0", 95830, 12, 2),
    "vllm-0.15-jetson-thor.txt": ("580.00", "NVIDIA Thor", "11.0", None, None, 1),
    "vllm-0.5-four-a10-driver-470.txt": ("470.129.06", "NVIDIA A10", "8.6", 23028, 0, 4),
    "vllm-0.6-driver-too-old.txt": ("470.82.01", "NVIDIA A100-SXM4-40GB", "8.0", 40960, None, 8),
}


@pytest.mark.parametrize("name", sorted(GPUS))
def test_gpus(name: str) -> None:
    found = gpus_of(reported(name))
    first = found.devices[0]
    memory = first.memory_total_bytes
    assert (
        found.driver_version,
        first.name,
        first.compute_capability,
        None if isinstance(memory, Unknown) else memory // 2**20,
        None if isinstance(first.nvlinks_active, Unknown) else first.nvlinks_active,
        len(found.devices),
    ) == GPUS[name]
    assert [g.index for g in found.devices] == list(range(len(found.devices)))


def test_what_the_report_does_not_tell_of_a_gpu_is_unknown() -> None:
    gpu = gpus_of(reported("vllm-0.11-two-h100-nvl.txt")).devices[1]
    assert gpu == Gpu(
        index=1,
        name="NVIDIA H100 NVL",
        uuid=NOT_SAID,
        lost=None,
        compute_capability="9.0",
        memory_total_bytes=95830 * 2**20,
        memory_used_bytes=UNSAID,
        memory_free_bytes=UNSAID,
        mig_enabled=UNSAID,
        mig_devices=(),
        ecc_uncorrected=UNSAID,
        remapped_rows_pending=UNSAID,
        remapped_rows_failed=UNSAID,
        persistence=UNSAID,
        compute_mode=UNSAID,
        pcie_generation=UNSAID,
        pcie_generation_max=UNSAID,
        pcie_width=UNSAID,
        pcie_width_max=UNSAID,
        nvlinks_active=12,
        processes=UNSAID,
        fabric_state=UNSAID,
    )


def test_no_driver_and_no_gpu_for_torch() -> None:
    assert reported("vllm-0.10-no-driver.txt").gpus == NvmlUnavailable(
        failure=NvmlFailure.OTHER,
        detail="nvidia-smi had no answer when the environment report was written, and torch saw no GPU",
    )


def test_a_torch_for_the_processor_says_nothing_of_gpus() -> None:
    assert reported("torch-2.13-cpu.txt").gpus == UNSAID
    assert reported("vllm-0.32-cpu.txt").gpus == UNSAID


def test_a_gpu_of_another_maker_is_named() -> None:
    assert reported("vllm-0.5-rocm-mi300x.txt").gpus == Unknown(
        "the environment report names a GPU that is not NVIDIA's: AMD Instinct MI300X (gfx942:sramecc+:xnack-)"
    )


# File -> system, kernel, machine, distribution, libc version, CPUs, WSL.
HOSTS = {
    "issue-l40s-vgpu.md": ("4.18.0-553.8.1.el8_10.x86_64", "x86_64", "Red Hat Enterprise Linux release 8.10 (Ootpa)"),
    "torch-2.13-cpu.txt": ("6.18.44", "x86_64", "Debian GNU/Linux 12 (bookworm)"),
    "vllm-0.15-jetson-thor.txt": ("6.8.12-tegra", "aarch64", "Ubuntu 24.04.4 LTS"),
    "vllm-0.6-driver-too-old.txt": ("5.4.119", "x86_64", "TencentOS Linux 3.1 (Core)"),
}


@pytest.mark.parametrize("name", sorted(HOSTS))
def test_host(name: str) -> None:
    host = host_of(reported(name))
    assert (host.kernel, host.machine, host.distribution) == HOSTS[name]
    assert (host.system, host.libc, host.complete) == ("Linux", "glibc", False)


def test_processor_and_libc() -> None:
    host = host_of(reported("vllm-0.32-cpu.txt"))
    assert (host.cpu_count, host.cpu_model, host.libc_version) == (2, "AMD EPYC", "2.36")
    assert not isinstance(host.cpu_extensions, Unknown)
    assert {"avx2", "avx512f", "avx512_bf16"} <= set(host.cpu_extensions)
    assert host.memory_total_bytes == UNSAID


def test_variables_are_those_of_the_report_and_no_others() -> None:
    assert host_of(reported("vllm-0.10-no-driver.txt")).environment == {
        "NVIDIA_VISIBLE_DEVICES": "all",
        "VLLM_PORT": "tcp://10.43.12.7:8000",
    }
    # The issue sets CUDA_VISIBLE_DEVICES in the text after the report.
    assert host_of(reported("issue-l40s-vgpu.md")).environment == {}


def test_library_path() -> None:
    assert host_of(reported("vllm-0.11-two-h100-nvl.txt")).library_path == ("/usr/local/cuda/lib64",)


def test_packages_of_pip_and_conda() -> None:
    found = environment_of(reported("vllm-0.5-four-a10-driver-470.txt"))
    versions = {d.name: d.version for d in found.distributions}
    assert versions["torch"] == "2.4.0+cu121"
    assert versions["vllm"] == "0.5.5"
    assert versions["nvidia-nccl-cu12"] == "2.20.5"
    assert versions["transformers"] == "4.44.2"
    # libnccl is a package of conda-forge, not a distribution of Python.
    assert "libnccl" not in versions
    assert len(versions) == len(found.distributions)


def test_every_report_names_its_fixture_in_the_readme() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in FIXTURES if f"`{name}`" not in text] == []
