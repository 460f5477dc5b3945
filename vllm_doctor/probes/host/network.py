"""The names of the network interfaces and of the RDMA devices."""

import os

from vllm_doctor.facts import Unknown

FOLDER = "/sys/class/net"
MAXIMUM_INTERFACES = 1000


def interfaces(folder: str = FOLDER) -> tuple[str, ...] | Unknown:
    """The interfaces as the kernel lists them, sorted."""
    try:
        with os.scandir(folder) as entries:
            # `bonding_masters` is a file among the links.
            return tuple(sorted(e.name for e, _ in zip(entries, range(MAXIMUM_INTERFACES), strict=False) if e.is_dir()))
    except OSError as problem:
        return Unknown(f"{folder} cannot be read: {problem.strerror}")


def infiniband_devices(folder: str = "/sys/class/infiniband") -> tuple[str, ...]:
    """The RDMA devices (InfiniBand, RoCE) that the kernel drives, sorted; without such a driver there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(e.name for e, _ in zip(entries, range(MAXIMUM_INTERFACES), strict=False)))
    except OSError:
        return ()
