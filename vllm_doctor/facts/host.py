"""Facts about the machine: system, processor, memory, limits, disks, container, GPU device files."""

from collections.abc import Mapping

from vllm_doctor.facts.base import Bytes, Count, Facts, Section, Unknown


class FileSystem(Section, frozen=True):
    """The file system that holds `path`, for one purpose (`hub-cache`, `compile-cache`, `temporary`, `shm`)."""

    purpose: str
    path: str
    total_bytes: Bytes
    free_bytes: Bytes


class PciGpu(Facts, frozen=True):
    """A display or 3D controller on the PCI bus, whether or not a driver drives it; `vendor`: nvidia, amd, intel."""

    address: str
    vendor: str
    device_id: str
    driver: str | None


class MemoryNode(Facts, frozen=True):
    """A NUMA node's memory; available is free memory, file pages and reclaimable slabs."""

    number: Count
    total_bytes: Bytes
    available_bytes: Bytes


class Host(Section, frozen=True):
    """The machine; `network_interfaces` are the names that `ip link` lists, `infiniband_devices` those of RDMA devices.

    `cgroup_limit_bytes`, `cgroup_used_bytes`, `memlock_bytes` and `address_space_bytes` are None where there is no
    limit. `memory_nodes` is empty where the system has none. `environment` maps
    the names of relevant variables to their values, or to None where the value may be a secret. `libcuda_paths` are
    the files that the loader would take for libcuda.so.1, the first one first. `kernel_module_version` is that of the
    loaded NVIDIA kernel module, None where none is loaded. `container` names the kind (docker, podman, kubernetes,
    lxc, ...), None outside of one. `complete` is False for a host known only from an environment report: what is empty
    or None there was not looked at, and proves nothing. `absent_paths` are the flags and variables of the launch that
    name a file or a folder which is not there.
    """

    system: str
    kernel: str
    machine: str
    distribution: str | Unknown
    libc: str | Unknown
    libc_version: str | Unknown
    cpu_model: str | Unknown
    cpu_count: Count | Unknown
    cpu_extensions: tuple[str, ...] | Unknown
    memory_total_bytes: Bytes | Unknown
    memory_available_bytes: Bytes | Unknown
    cgroup_limit_bytes: Bytes | Unknown | None
    cgroup_used_bytes: Bytes | Unknown | None
    shm: FileSystem | Unknown
    memlock_bytes: Bytes | Unknown | None
    open_files: Count | Unknown | None
    disks: tuple[FileSystem, ...]
    container: str | None
    wsl: bool
    gpu_device_files: tuple[str, ...]
    pci_gpus: tuple[PciGpu, ...] | Unknown
    kernel_module_version: str | Unknown | None
    libcuda_paths: tuple[str, ...]
    library_path: tuple[str, ...]
    environment: Mapping[str, str | None]
    memory_nodes: tuple[MemoryNode, ...] = ()
    address_space_bytes: Bytes | Unknown | None = None
    complete: bool = True
    network_interfaces: tuple[str, ...] | Unknown = Unknown("the network interfaces were not read")
    infiniband_devices: tuple[str, ...] = ()
    absent_paths: tuple[str, ...] = ()
