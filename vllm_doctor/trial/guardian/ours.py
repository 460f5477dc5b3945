"""Which processes belong to a job, and how to signal one without ever meeting another that has its number."""

import os
import signal
import time

# An environment that a process was started with; the kernel allows 2 MiB of words and variables.
_MAXIMUM_ENVIRONMENT_BYTES = 4 * 2**20
_STAT_BYTES = 4096
_COMMAND_BYTES = 4096

# The doctor looks for the leader 4 times a second while it waits, and not at all while it walks for some seconds.
_SLACK_TICKS = 10 * os.sysconf("SC_CLK_TCK")

_TRACKER = b"multiprocessing.resource_tracker"


class Process:
    """One process as /proc/PID/stat shows it; (pid, started) names it for as long as the system runs."""

    __slots__ = ("group", "name", "parent", "pid", "session", "started", "state")

    def __init__(self, pid: int, name: str, state: str, parent: int, group: int, session: int, started: int) -> None:
        self.pid = pid
        self.name = name
        self.state = state
        self.parent = parent
        self.group = group
        self.session = session
        self.started = started

    @property
    def ended(self) -> bool:
        """Whether only its exit code is left (a zombie): it holds neither memory nor sockets."""
        return self.state in ("Z", "X", "x")

    @property
    def identity(self) -> "tuple[int, int]":
        """What no other process has."""
        return self.pid, self.started


def read(pid: int) -> "Process | None":
    """The process of that number, None where there is none."""
    stat = _bytes(f"/proc/{pid}/stat", _STAT_BYTES)
    # The name stands in parentheses and may hold any byte, parentheses and spaces included (proc(5)).
    opened, closed = stat.find(b"("), stat.rfind(b")")
    fields = stat[closed + 1 :].split()
    if opened < 0 or len(fields) < 20:
        return None
    name = stat[opened + 1 : closed].decode("utf-8", "replace")
    parent, group, session = (int(field) for field in fields[1:4])
    return Process(pid, name, fields[0].decode(), parent, group, session, int(fields[19]))


def everyone() -> "dict[int, Process]":
    """All processes that this user may see; none where there is no /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return {}
    found = (read(int(name)) for name in names if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def below(root: int, processes: "dict[int, Process]") -> "set[int]":
    """The numbers of all descendants of a process."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found and child != root:
                found.add(child)
                waiting.append(child)
    return found


def carries(pid: int, marker: bytes) -> bool:
    """Whether the process was started with that variable (`NAME=value`) in its environment."""
    return marker in _bytes(f"/proc/{pid}/environ", _MAXIMUM_ENVIRONMENT_BYTES).split(b"\0")


def of_job(guardian: int, leader: int, marker: bytes, until_ticks: "int | None" = None) -> "list[Process]":
    """The processes of a job, ended ones included, but neither the guardian nor the caller and its ancestors.

    By parentage (the guardian adopts what its descendants leave behind), by the leader's group and session, and by the
    marker. vLLM's engine core and workers show no marker: the title that they give themselves (setproctitle) is written
    over their environment. Where the leader may have been reaped, its number may be another process's by now, and
    it never is while one of its own session lives: `until_ticks` is when the leader was seen last, and what was started
    in that session until then or shortly after, while nobody else has the number, is the job's.
    """
    processes = everyone()
    family = below(guardian, processes)
    heir = processes.get(leader)
    allowed = 0 if until_ticks is not None and heir is not None and heir.started > until_ticks else _SLACK_TICKS
    strangers = {guardian, os.getpid(), *_ancestors(os.getpid(), processes)}
    mine = [
        process
        for process in processes.values()
        if process.pid not in strangers
        and (
            process.pid in family
            or (_is_led(process, leader) and (until_ticks is None or process.started <= until_ticks + allowed))
            or carries(process.pid, marker)
        )
    ]
    known = {process.pid for process in mine}
    for pid in list(known):
        known |= below(pid, processes)
    return [process for pid, process in processes.items() if pid in known and pid not in strangers]


def now_ticks() -> int:
    """The time in the unit of `Process.started`: clock ticks since boot (proc(5))."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def send(process: Process, number: int) -> bool:
    """Signal this very process; False where it is gone, its number is another's by now, or may not be signalled."""
    if process.pid <= 1:
        return False
    descriptor = _descriptor(process.pid)
    try:
        # Read after the descriptor was opened: from here on the descriptor cannot mean another process.
        now = read(process.pid)
        if now is None or now.started != process.started:
            return False
        if descriptor is None:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def is_tracker(pid: int) -> bool:
    """Whether it is a resource tracker of Python, which removes shared memory once all its writers are gone."""
    return _TRACKER in _bytes(f"/proc/{pid}/cmdline", _COMMAND_BYTES)


def _is_led(process: Process, leader: int) -> bool:
    return leader > 1 and leader in (process.group, process.session)


def _ancestors(pid: int, processes: "dict[int, Process]") -> "set[int]":
    found: set[int] = set()
    while (process := processes.get(pid)) is not None and process.parent not in found:
        pid = process.parent
        found.add(pid)
    return found


def _descriptor(pid: int) -> "int | None":
    """A handle of the process; None where the kernel (before 5.3) or this Python has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _bytes(path: str, maximum_bytes: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        blocks = []
        while maximum_bytes > 0 and (block := os.read(descriptor, min(maximum_bytes, 65_536))):
            blocks.append(block)
            maximum_bytes -= len(block)
        return b"".join(blocks)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
