"""The names of the network interfaces."""

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
