"""The host probe: the machine as its kernel files describe it; no process is started."""

import os
from collections.abc import Mapping

from vllm_doctor.facts import Host, Launch
from vllm_doctor.probes.host import (
    container,
    disks,
    limits,
    loader,
    memory,
    named,
    network,
    pci,
    processor,
    system,
)
from vllm_doctor.probes.host import variables as environment_variables


def probe_host(variables: Mapping[str, str] | None = None, launch: Launch | None = None) -> Host:
    """The facts of this machine; `variables` are this process's own unless given.

    `launch` may name other places for its caches (`--download-dir`, `HF_HOME=... vllm serve`).
    """
    known = os.environ if variables is None else variables
    name, kernel, machine = system.names()
    libc, libc_version = system.libc()
    cpu_model, cpu_extensions = processor.read()
    total, available = memory.ram()
    limit, used = memory.cgroup()
    folders = loader.library_folders(known.get("LD_LIBRARY_PATH", ""))
    return Host(
        system=name,
        kernel=kernel,
        machine=machine,
        distribution=system.distribution(),
        libc=libc,
        libc_version=libc_version,
        cpu_model=cpu_model,
        cpu_count=processor.usable_count(),
        cpu_extensions=cpu_extensions,
        memory_total_bytes=total,
        memory_available_bytes=available,
        memory_nodes=memory.nodes(),
        cgroup_limit_bytes=limit,
        cgroup_used_bytes=used,
        shm=disks.shared_memory(),
        memlock_bytes=limits.soft("RLIMIT_MEMLOCK"),
        open_files=limits.soft("RLIMIT_NOFILE"),
        address_space_bytes=limits.soft("RLIMIT_AS"),
        disks=disks.file_systems(known, launch),
        container=container.kind(known),
        wsl=container.is_wsl(kernel),
        gpu_device_files=pci.device_files(),
        pci_gpus=pci.gpus(),
        kernel_module_version=pci.kernel_module_version(),
        libcuda_paths=loader.libcuda_paths(folders, machine),
        library_path=folders,
        environment=environment_variables.relevant(known),
        network_interfaces=network.interfaces(),
        infiniband_devices=network.infiniband_devices(),
        absent_paths=named.absent(known, launch),
    )
