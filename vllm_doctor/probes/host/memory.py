"""Memory: RAM, what is available of it, the memory nodes as vLLM's CPU build counts them, and the cgroup's limit."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from vllm_doctor.facts import Unknown
from vllm_doctor.facts.host import MemoryNode
from vllm_doctor.probes.host import files

# Limits from here on mean "none": cgroup v1 writes PAGE_COUNTER_MAX (about 2**63), and no machine has an exbibyte.
UNLIMITED_BYTES = 2**60

# A kernel nests cgroups as deep as it likes; containers in pods in slices come to about ten.
MAXIMUM_DEPTH = 40

MAXIMUM_NODES = 64


def fields(meminfo: str) -> dict[str, int]:
    """The values of a meminfo file in bytes; lines that hold no number are left out."""
    values: dict[str, int] = {}
    for line in meminfo.split("\n"):
        name, _, rest = line.partition(":")
        words = rest.split()
        # A memory node's file says "Node 0 MemTotal: ..." where /proc/meminfo says "MemTotal: ...".
        key = name.split()[-1] if name.split() else ""
        if key and words and words[0].isascii() and words[0].isdecimal() and len(words[0]) < 16:
            values[key] = int(words[0]) * 1024
    return values


def ram() -> tuple[int | Unknown, int | Unknown]:
    """Total and available bytes of RAM."""
    content = files.text("/proc/meminfo", 16_384)
    if content is None:
        return _total_of_other_systems(), Unknown("this system has no /proc/meminfo")
    values = fields(content)
    why = "/proc/meminfo does not say"
    return values.get("MemTotal", Unknown(why)), values.get("MemAvailable", Unknown(why))


def _total_of_other_systems() -> int | Unknown:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return Unknown(f"{sys.platform} does not say how much memory there is")


def nodes() -> tuple[MemoryNode, ...]:
    """The memory nodes, counted as vLLM 0.32 does (`utils/cpu_resource_utils.py: get_memory_node_info`).

    Available is what is free, the file pages and the reclaimable slabs of that node. The first is that of the first
    processor this process may use: the one that vLLM's CPU worker looks at.
    """
    try:
        entries = [entry.name for entry in Path("/sys/devices/system/node").iterdir()]
    except OSError:
        return ()
    names = [n for n in entries if n.startswith("node") and n[4:].isdecimal()]
    found = []
    for name in sorted(names, key=lambda n: int(n[4:]))[:MAXIMUM_NODES]:
        values = fields(files.text(f"/sys/devices/system/node/{name}/meminfo", 8192) or "")
        if total := values.get("MemTotal"):
            parts = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
            available = sum(values.get(part, 0) for part in parts)
            found.append(MemoryNode(number=int(name[4:]), total_bytes=total, available_bytes=available))
    own = _own_node() if len(found) > 1 else None
    return tuple(sorted(found, key=lambda node: (node.number != own, node.number)))


def _own_node() -> int | None:
    try:
        entries = Path(f"/sys/devices/system/cpu/cpu{min(os.sched_getaffinity(0))}").iterdir()
        return next((int(e.name[4:]) for e in entries if e.name.startswith("node") and e.name[4:].isdecimal()), None)
    except (OSError, AttributeError):
        return None


def cgroup() -> tuple[int | Unknown | None, int | Unknown | None]:
    """The tightest limit over this process and what is used under it, in bytes; None, None without a limit."""
    membership, mounts = files.text("/proc/self/cgroup", 16_384), files.text("/proc/self/mountinfo", 262_144)
    return (None, None) if membership is None or mounts is None else tightest(membership, mounts)


def tightest(membership: str, mounts: str) -> tuple[int | None, int | Unknown | None]:
    """The same for a process of that /proc/PID/cgroup and /proc/PID/mountinfo.

    Used leaves out the inactive file pages, which the kernel takes back before it kills (as Kubernetes' working set).
    """
    limited = [
        (limit, folder, version)
        for folder, version in memory_folders(membership, mounts)
        if (limit := _limit(folder, version)) is not None
    ]
    if not limited:
        return None, None
    limit, folder, version = min(limited)
    return limit, _used(folder, version)


def memory_folders(membership: str, mounts: str) -> Iterator[tuple[str, int]]:
    """The folders, from the process's own cgroup up to the mount's root, that may limit its memory, with 1 or 2.

    `membership` is a /proc/PID/cgroup, `mounts` a /proc/PID/mountinfo (cgroups(7), proc(5)).
    """
    places = {1: "", 2: ""}
    for line in membership.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            places[1] = path
        elif number == "0" and not controllers:
            places[2] = path
    for line in mounts.split("\n"):
        before, _, after = line.partition(" - ")
        words, kind = before.split(" "), after.split(" ")
        if len(words) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" and places[2]:
            yield from ((folder, 2) for folder in _upwards(places[2], words[3], words[4]))
        elif kind[0] == "cgroup" and places[1] and "memory" in kind[2].split(","):
            yield from ((folder, 1) for folder in _upwards(places[1], words[3], words[4]))


def _upwards(place: str, root: str, mount: str) -> Iterator[str]:
    # In a container without a cgroup namespace the mount shows only the part below its root.
    if root != "/" and (place == root or place.startswith(root + "/")):
        place = place[len(root) :]
    parts = [part for part in place.split("/") if part and part != ".."][:MAXIMUM_DEPTH]
    for length in range(len(parts), -1, -1):
        yield "/".join((mount.rstrip("/"), *parts[:length]))


def _limit(folder: str, version: int) -> int | None:
    limit = files.number(f"{folder}/{'memory.max' if version == 2 else 'memory.limit_in_bytes'}")
    return None if limit is None or limit >= UNLIMITED_BYTES else limit


def _used(folder: str, version: int) -> int | Unknown:
    name = "memory.current" if version == 2 else "memory.usage_in_bytes"
    used = files.number(f"{folder}/{name}")
    if used is None:
        return Unknown(f"{folder}/{name} cannot be read")
    cached = 0
    wanted = "inactive_file" if version == 2 else "total_inactive_file"
    for line in (files.text(f"{folder}/memory.stat", 16_384) or "").split("\n"):
        name, _, value = line.partition(" ")
        if name == wanted and value.isascii() and value.isdecimal():
            cached = int(value)
    return max(0, used - cached)
