#!/usr/bin/env python3
"""Writes the healthy snapshots of fixtures/snapshots, the baselines that the cases of the checks change.

    make_snapshot_fixtures.py REPORT.json

REPORT.json is what `pip install --dry-run --ignore-installed --report REPORT.json vllm==0.20.2` says under Python 3.12
(pip judges markers by the Python that it runs in): the real distributions and their
real requirements. The host and the GPU are as an H100 machine shows them.
"""

import json
import sys
from pathlib import Path

from msgspec import structs

from vllm_doctor.facts import (
    Distribution,
    Environment,
    Extension,
    FileSystem,
    Gpu,
    Gpus,
    Host,
    NvmlFailure,
    NvmlUnavailable,
    PciGpu,
    Servers,
    TorchBuild,
    VllmBuild,
)
from vllm_doctor.snapshot import Snapshot, write

FOLDER = Path(__file__).parent.parent / "fixtures" / "snapshots"
SITE = "/opt/venv/lib/python3.12/site-packages"
GIB = 2**30
MIB = 2**20

MARKERS = {
    "implementation_name": "cpython",
    "implementation_version": "3.12.3",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "6.8.0-60-generic",
    "platform_system": "Linux",
    "platform_version": "#63-Ubuntu SMP PREEMPT_DYNAMIC",
    "python_full_version": "3.12.3",
    "python_version": "3.12",
    "sys_platform": "linux",
}


def host(*, gpu: bool) -> Host:
    """An Ubuntu 24.04 machine, bare metal."""
    return Host(
        system="Linux",
        kernel="6.8.0-60-generic",
        machine="x86_64",
        distribution="Ubuntu 24.04.2 LTS",
        libc="glibc",
        libc_version="2.39",
        cpu_model="AMD EPYC 9654 96-Core Processor",
        cpu_count=96,
        cpu_extensions=("avx2", "avx512f", "avx512_bf16", "avx512_vnni"),
        memory_total_bytes=512 * GIB,
        memory_available_bytes=480 * GIB,
        cgroup_limit_bytes=None,
        cgroup_used_bytes=None,
        shm=FileSystem(purpose="shm", path="/dev/shm", total_bytes=256 * GIB, free_bytes=256 * GIB),
        memlock_bytes=None,
        open_files=1048576,
        disks=tuple(
            FileSystem(purpose=purpose, path=path, total_bytes=1800 * GIB, free_bytes=1200 * GIB)
            for purpose, path in (
                ("hub-cache", "/srv/cache/huggingface/hub"),
                ("compile-cache", "/srv/cache/vllm"),
                ("temporary", "/tmp"),
            )
        ),
        container=None,
        wsl=False,
        gpu_device_files=("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm") if gpu else (),
        pci_gpus=(PciGpu(address="0000:19:00.0", vendor="nvidia", device_id="2330", driver="nvidia"),) if gpu else (),
        kernel_module_version="580.159.03" if gpu else None,
        libcuda_paths=("/usr/lib/x86_64-linux-gnu/libcuda.so.1",) if gpu else (),
        library_path=(),
        environment={},
    )


def gpus() -> Gpus:
    """One idle H100."""
    total = 81559 * MIB
    return Gpus(
        driver_version="580.159.03",
        cuda_version="13.0",
        devices=(
            Gpu(
                index=0,
                name="NVIDIA H100 80GB HBM3",
                uuid="GPU-5e2ab5d2-6f0a-4b5e-9e0d-3c1f8a7b6c5d",
                lost=None,
                compute_capability="9.0",
                memory_total_bytes=total,
                memory_used_bytes=4 * MIB,
                memory_free_bytes=total - 4 * MIB,
                mig_enabled=False,
                mig_devices=(),
                ecc_uncorrected=0,
                remapped_rows_pending=False,
                remapped_rows_failed=False,
                persistence=True,
                compute_mode="default",
                pcie_generation=5,
                pcie_generation_max=5,
                pcie_width=16,
                pcie_width_max=16,
                nvlinks_active=18,
                processes=(),
            ),
        ),
    )


def distributions(report: Path) -> tuple[Distribution, ...]:
    """What the report would install."""
    found = []
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        metadata = item["metadata"]
        found.append(
            Distribution(
                name=metadata["name"].lower().replace("_", "-").replace(".", "-"),
                version=metadata["version"],
                location=SITE,
                requires=tuple(r for r in metadata.get("requires_dist", ()) if "extra ==" not in r),
                requires_python=metadata.get("requires_python"),
            )
        )
    return tuple(sorted(found, key=lambda d: d.name))


def without_cuda(installed: tuple[Distribution, ...]) -> tuple[Distribution, ...]:
    """What a CPU build leaves out: NVIDIA's packages and all that needs them, and the requirements that name them."""
    gone = ("nvidia-", "cuda-", "flashinfer", "quack-kernels", "tokenspeed")
    return tuple(
        structs.replace(d, requires=tuple(r for r in d.requires if not r.lower().startswith(gone)))
        for d in installed
        if not d.name.startswith(gone)
    )


def environment(installed: tuple[Distribution, ...], *, local: str, cuda: str | None, platform: str) -> Environment:
    """A virtual environment with vLLM 0.20.2 and torch 2.11.0 of one platform."""
    return Environment(
        python="/opt/venv/bin/python",
        python_version="3.12.3",
        implementation="cpython",
        prefix="/opt/venv",
        kind="venv",
        named_by="vllm on PATH",
        markers=MARKERS,
        openssl_version="3.0.13",
        search_path=("/usr/lib/python3.12", SITE),
        commands={"vllm": "/opt/venv/bin/vllm"},
        distributions=installed,
        torch=TorchBuild(version=f"2.11.0{local}", platform=platform, cuda=cuda, path=f"{SITE}/torch"),
        vllm=VllmBuild(
            path=f"{SITE}/vllm",
            distribution="vllm",
            metadata_version="0.20.2" if cuda else "0.20.2+cpu",
            package_version="0.20.2",
            platform=platform,
            extensions=("_C.abi3.so",),
        ),
        extensions=(
            Extension(
                owner="vllm",
                path=f"{SITE}/vllm/_C.abi3.so",
                needed_missing=(),
                undefined=(),
                undefined_count=0,
            ),
        ),
        shadows=(),
    )


def main() -> None:
    """Write both."""
    installed = distributions(Path(sys.argv[1]))
    servers = Servers(running=(), listeners=())
    write(
        Snapshot(
            host=host(gpu=True),
            gpus=gpus(),
            environment=environment(installed, local="+cu130", cuda="13.0", platform="cuda"),
            servers=servers,
            taken_at="2026-11-22T12:00:00+00:00",
        ),
        FOLDER / "healthy-h100.json",
    )
    no_cuda = without_cuda(installed)
    write(
        Snapshot(
            host=host(gpu=False),
            gpus=NvmlUnavailable(failure=NvmlFailure.NO_LIBRARY, detail="NVML Shared Library Not Found"),
            environment=environment(no_cuda, local="+cpu", cuda=None, platform="cpu"),
            servers=servers,
            taken_at="2026-11-22T12:00:00+00:00",
        ),
        FOLDER / "healthy-cpu.json",
    )


if __name__ == "__main__":
    main()
