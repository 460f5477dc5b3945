"""The shared memory that a job made: noted while its processes hold it, removed once nobody does."""

import os
import stat

from vllm_doctor.trial.guardian.ours import everyone

FOLDER = "/dev/shm/"  # noqa: S108 - the kernel's folder of shared memory is what this is about

# A process with more mappings or files than this is looked at in part (sysctl vm.max_map_count is 65530).
_MAXIMUM_MAPPINGS = 262_144
_MAXIMUM_FILES = 65_536


class Segments:
    """Path and inode of every segment that a job's processes were seen with and that was not there before."""

    def __init__(self) -> None:
        self._changed_ns = _changed_ns()
        self._before = present()
        self._seen: set[tuple[str, int]] = set()

    def changed(self) -> bool:
        """Whether anything was made or removed there since this was asked last: the time of the folder says so."""
        before, self._changed_ns = self._changed_ns, _changed_ns()
        return before != self._changed_ns

    def note(self, pids: "list[int]") -> None:
        """Look at what these processes hold now."""
        for pid in pids:
            self._seen |= held_by(pid) - self._before

    def remove(self) -> "tuple[list[str], list[str]]":
        """Remove what is still there; the paths that were removed, and those that could not be or are in use.

        A segment that a living process holds is not removed: whoever was given it may still need it.
        """
        removed: list[str] = []
        left: list[str] = []
        waiting = sorted(segment for segment in self._seen if _is_there(segment))
        in_use = _held_by_anyone() if waiting else set()
        for path, inode in waiting:
            (removed if (path, inode) not in in_use and _unlink(path) else left).append(path)
        return removed, left


def _changed_ns() -> int:
    try:
        return os.stat(FOLDER).st_mtime_ns
    except OSError:
        return 0


def present() -> "set[tuple[str, int]]":
    """The segments that there are: path and inode, as a name may be used again."""
    try:
        with os.scandir(FOLDER) as entries:
            return {(entry.path, entry.inode()) for entry in entries}
    except OSError:
        return set()


def held_by(pid: int) -> "set[tuple[str, int]]":
    """The segments that a process has mapped or open, by the names that they have now.

    Who makes a semaphore maps it under a name that is gone at once: glibc's sem_open then links it to its own.
    """
    try:
        device = os.stat(FOLDER).st_dev
    except OSError:
        return set()
    inodes = _mapped(pid, device) | _open(pid, device)
    return {segment for segment in present() if segment[1] in inodes} if inodes else set()


def _held_by_anyone() -> "set[tuple[str, int]]":
    found: set[tuple[str, int]] = set()
    for pid in everyone():
        found |= held_by(pid)
    return found


def _mapped(pid: int, device: int) -> "set[int]":
    found: set[int] = set()
    folder = FOLDER.encode()
    try:
        with open(f"/proc/{pid}/maps", "rb") as maps:
            for _, line in zip(range(_MAXIMUM_MAPPINGS), maps, strict=False):
                if folder not in line:
                    continue
                # proc(5): address perms offset device inode path.
                fields = line.split(None, 5)
                if len(fields) == 6 and fields[5].startswith(folder) and _number(fields[3]) == device:
                    found.add(int(fields[4]))
    except OSError:
        return found
    return found


def _number(device: bytes) -> int:
    major, _, minor = device.partition(b":")
    return os.makedev(int(major, 16), int(minor, 16))


def _open(pid: int, device: int) -> "set[int]":
    found: set[int] = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for name in names[:_MAXIMUM_FILES]:
        link = f"/proc/{pid}/fd/{name}"
        try:
            if os.readlink(link).startswith(FOLDER) and (file := os.stat(link)).st_dev == device:
                found.add(file.st_ino)
        except OSError:
            continue
    return found


def _is_there(segment: "tuple[str, int]") -> bool:
    """Whether the path still names that file, and the file is this user's own."""
    path, inode = segment
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_ino == inode and found.st_uid == os.geteuid()


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
