"""Who listens on which TCP port, from the kernel's own tables; nothing is connected to."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vllm_doctor import redact
from vllm_doctor.facts import Listener, Unknown
from vllm_doctor.probes.host import files

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")

# The kernel writes listening sockets first (net/ipv4/tcp_ipv4.c, tcp_get_idx), so the start of a table holds them all.
MAXIMUM_TABLE_BYTES = 2 * 2**20

# A read of such a table ends at the end of a line, within a page (fs/seq_file.c, seq_read_iter): one that brings less
# than a page without a line (at most 180 bytes) was the last. Asking for more walks through all sockets again.
FULL_READ_BYTES = 4096 - 256

MAXIMUM_LISTENERS = 2000

# How many open files of all processes are looked at to find whose a socket is.
MAXIMUM_OPEN_FILES = 200_000

_LISTEN = "0A"


class Socket(NamedTuple):
    """A listening socket: `inode` names it, `user_id` is its owner's."""

    address: str
    port: int
    user_id: int
    inode: int


def sockets(table: str) -> Iterator[Socket]:
    """The listening sockets of a /proc/net/tcp or tcp6 (proc(5)); lines that are none are passed over."""
    for line in table.split("\n"):
        words = line.split()
        if len(words) < 10 or words[3] != _LISTEN:
            continue
        address, _, port = words[1].rpartition(":")
        try:
            yield Socket(readable(address), int(port, 16), int(words[7]), int(words[9]))
        except ValueError:
            continue


def readable(address: str) -> str:
    """The usual form of the kernel's hexadecimal address; raises ValueError for anything else."""
    words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
    data = b"".join(words)
    if len(data) == 4:
        return ".".join(str(byte) for byte in data)
    if len(data) != 16:
        raise ValueError(f"no address: {address[:40]}")
    if not any(data):
        return "::"
    import ipaddress

    return str(ipaddress.IPv6Address(data))


def reachable(addresses: Iterable[str]) -> str:
    """The address, as in a URL, at which this host itself reaches somebody who listens on those: loopback if it can."""
    found = set(addresses)
    if found & {"0.0.0.0", "127.0.0.1", "::", "::ffff:0.0.0.0", "::ffff:127.0.0.1"}:  # noqa: S104 - compared with
        return "127.0.0.1"
    first = min(found)
    return f"[{first}]" if ":" in first else first


def listening() -> tuple[Socket, ...] | Unknown:
    """The listening sockets of this network namespace."""
    tables = [content for path in TABLES if (content := _start(path)) is not None]
    if not tables:
        return Unknown(f"{TABLES[0]} cannot be read: this system does not show who listens")
    found = (socket for table in tables for socket in sockets(table))
    return tuple(socket for _, socket in zip(range(MAXIMUM_LISTENERS), found, strict=False))


def _start(path: str) -> str | None:
    """The part of a table that holds the listening sockets, in as few reads as it takes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, AttributeError):
        return None
    parts: list[bytes] = []
    try:
        while len(parts) * FULL_READ_BYTES < MAXIMUM_TABLE_BYTES:
            parts.append(os.read(descriptor, 65_536))
            if len(parts[-1]) < FULL_READ_BYTES or not _all_listen(parts[-1]):
                break
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("ascii", "replace")


def _all_listen(part: bytes) -> bool:
    lines = [line.split() for line in part.splitlines()]
    return all(words[3] in (b"0A", b"st") for words in lines if len(words) > 3)


def facts(found: tuple[Socket, ...], ports: Collection[int], commands: Mapping[int, str]) -> tuple[Listener, ...]:
    """The listeners as facts; whose they are is looked up for those ports only, for it costs a walk over all files.

    `commands` are the command lines that are known already, by pid, with their secrets masked.
    """
    owners = _owners({socket.inode for socket in found if socket.port in ports})
    return tuple(_fact(socket, owners.get(socket.inode), commands) for socket in found)


def _fact(socket: Socket, pid: int | None, commands: Mapping[int, str]) -> Listener:
    command = None if pid is None else commands.get(pid)
    if pid is not None and command is None:
        words = (files.head(f"/proc/{pid}/cmdline", 4096) or b"").decode("utf-8", "replace").split("\0")
        command = redact.line(" ".join(redact.words(word for word in words if word))) or None
    return Listener(address=socket.address, port=socket.port, pid=pid, command=command, user=user_name(socket.user_id))


def _owners(inodes: set[int]) -> dict[int, int]:
    """The pid that holds each socket, where this user may see it."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[int, int] = {}
    left = MAXIMUM_OPEN_FILES
    for pid in pids() if wanted else ():
        for target in _open_files(pid, left):
            left -= 1
            if (inode := wanted.get(target)) is not None:
                owners.setdefault(inode, pid)
        if len(owners) == len(wanted) or left <= 0:
            break
    return owners


def _open_files(pid: int, maximum: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        entries = [entry.path for _, entry in zip(range(maximum), os.scandir(folder), strict=False)]
    except OSError:
        return
    for path in entries:
        try:
            target = os.readlink(path)  # noqa: PTH115 - a hundred thousand of them: a Path each is too dear
        except OSError:
            continue
        yield target


def pids() -> list[int]:
    """The processes there are, oldest first; none where there is no /proc."""
    try:
        return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    except OSError:
        return []


def user_name(user_id: int) -> str:
    """The name of a user id, or the number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(user_id).pw_name
    except (KeyError, OverflowError):
        return str(user_id)
