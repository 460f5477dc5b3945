"""What /proc tells of a process that holds GPU memory: whose it is, how old, and what it is to vLLM."""

import itertools
import os
import time
from pathlib import Path
from typing import NamedTuple

from vllm_doctor import redact
from vllm_doctor.facts import GpuProcess, ProcessRole, Unknown

PROC = Path("/proc")

_MAXIMUM_COMMAND_BYTES = 16_384
_MAXIMUM_MAPS_BYTES = 8 * 2**20
_MAXIMUM_ANCESTORS = 32
_MAXIMUM_FILES = 4096

# include/linux/proc_ns.h, PROC_PID_INIT_INO: the pid namespace that the driver's pids are of.
_INITIAL_NAMESPACE = "pid:[4026531836]"

# Programs that adopt orphans, or that never start an engine core themselves.
_REAPERS = frozenset(
    {"init", "systemd", "upstart", "launchd", "tini", "dumb-init", "docker-init", "catatonit", "s6-svscan", "runsv"}
    | {"s6-supervise", "runsvdir", "supervisord", "conmon", "crun", "runc", "sshd", "tmux", "screen"}
    | {"bash", "sh", "dash", "zsh", "fish", "sleep", "tail"}
)


# vLLM 0.10 and later, v1/utils.py: one of several API servers.
_SERVER_TITLE = "VLLM::APIServer"


class Process(NamedTuple):
    """One process as /proc shows it; `words` is its command line, `executable` empty where it may not be seen."""

    pid: int
    name: str
    parent: int
    session: int
    started_ticks: int
    words: tuple[str, ...]
    executable: str

    @property
    def title(self) -> str:
        """The title that the process gave itself, or its command line."""
        return " ".join(self.words) or self.name


def describe(pid: int, used_bytes: int | None, proc: Path = PROC) -> GpuProcess:
    """The facts of the process of that pid; only the pid where it is of another pid namespace or gone."""
    used = Unknown("NVML does not say how much this process holds") if used_bytes is None else used_bytes
    process = read(pid, proc)
    if process is None or not _is_the_drivers(process, proc):
        unseen = Unknown(f"pid {pid} is not a process of this pid namespace")
        return GpuProcess(
            pid=pid,
            used_bytes=used,
            visible=False,
            role=ProcessRole.OTHER,
            user=unseen,
            command=unseen,
            age_seconds=unseen,
            parent_pid=unseen,
            container=unseen,
        )
    return GpuProcess(
        pid=pid,
        used_bytes=used,
        visible=True,
        role=role(process, proc),
        user=_user(pid, proc),
        command=redact.line(" ".join(redact.words(process.words)) or process.name),
        age_seconds=_age_seconds(process),
        parent_pid=process.parent,
        container=_container(pid, proc),
    )


def read(pid: int, proc: Path = PROC) -> Process | None:
    """The process of that pid; None where there is none, or it ended while being read."""
    folder = proc / str(pid)
    stat = _bytes(folder / "stat", 4096)
    # The name stands in parentheses and may hold any byte, parentheses and spaces included (proc(5)).
    opened, closed = stat.find(b"("), stat.rfind(b")")
    fields = stat[closed + 1 :].split()
    if opened < 0 or closed < opened or len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    line = _bytes(folder / "cmdline", _MAXIMUM_COMMAND_BYTES).decode(errors="replace")
    try:
        executable = (folder / "exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        executable = ""
    try:
        parent, session, started = int(fields[1]), int(fields[3]), int(fields[19])
    except ValueError:
        return None
    return Process(
        pid=pid,
        name=stat[opened + 1 : closed].decode(errors="replace"),
        parent=parent,
        session=session,
        started_ticks=started,
        words=tuple(w for w in line.split("\0") if w.strip()),
        executable=executable,
    )


def role(process: Process, proc: Path = PROC) -> ProcessRole:
    """What the process is to vLLM, by its own title and by those of its ancestors."""
    if process.pid in (os.getpid(), os.getppid()):
        return ProcessRole.DOCTOR
    if is_server(process):
        return ProcessRole.VLLM_WORKER if _below_server(process, proc) else ProcessRole.VLLM_SERVER
    if is_worker(process):
        return ProcessRole.VLLM_ORPHAN if is_orphan(process, proc) else ProcessRole.VLLM_WORKER
    if is_spawned(process):
        return _role_of_spawned(process, proc)
    return ProcessRole.OTHER


def is_server(process: Process) -> bool:
    """Whether the command line is that of vLLM's server (`vllm serve`, the api_server modules)."""
    if process.title.startswith(_SERVER_TITLE):
        return True
    words = process.words[:4]
    if any(w.startswith("vllm.entrypoints.") and w.endswith("api_server") for w in process.words[:6]):
        return True
    for word, following in itertools.pairwise(words):
        if word.rsplit("/", 1)[-1] == "vllm" and following == "serve":
            return True
    return False


def is_worker(process: Process) -> bool:
    """Whether the title is one of those that vLLM gives its children (`VLLM::EngineCore`, utils/system_utils.py)."""
    return process.title.startswith(("VLLM::", "ray::RayWorker")) and not process.title.startswith(_SERVER_TITLE)


def is_spawned(process: Process) -> bool:
    """Whether it is a child of Python's multiprocessing (method spawn), as workers before vLLM 0.10 show themselves."""
    return any("multiprocessing.spawn" in w for w in process.words[:6])


def is_orphan(process: Process, proc: Path = PROC) -> bool:
    """Whether the first ancestor that is no vLLM worker is one that cannot have started it: its own is gone."""
    child = process
    for _ in range(_MAXIMUM_ANCESTORS):
        # The parent 0 is outside of this pid namespace: alive, and not to be seen.
        parent = read(child.parent, proc) if child.parent > 0 else None
        if parent is None:
            return False
        if not (is_worker(parent) or is_spawned(parent)):
            return not is_server(parent) and _adopted(child, parent)
        child = parent
    return False


def _adopted(child: Process, parent: Process) -> bool:
    if "python" in parent.executable or (not parent.executable and parent.name.startswith(("python", "vllm"))):
        # A program that embeds vLLM is a parent like any other. One of another session that the child did not
        # leave by itself (setsid makes a process the leader of its own) never was its parent.
        return child.session not in (parent.session, child.pid)
    return parent.pid == 1 or parent.name in _REAPERS or parent.name.startswith("containerd-shim")


def _below_server(process: Process, proc: Path) -> bool:
    """A child that was forked keeps its server's command line."""
    parent = read(process.parent, proc) if process.parent > 0 else None
    return parent is not None and is_server(parent)


def _role_of_spawned(process: Process, proc: Path) -> ProcessRole:
    if _below_server(process, proc):
        return ProcessRole.VLLM_WORKER
    # The command line names nothing of vLLM; its compiled modules in the address space do.
    maps = _bytes(proc / str(process.pid) / "maps", _MAXIMUM_MAPS_BYTES)
    if b"/vllm/_" not in maps:
        return ProcessRole.OTHER
    return ProcessRole.VLLM_ORPHAN if is_orphan(process, proc) else ProcessRole.VLLM_WORKER


def _is_the_drivers(process: Process, proc: Path) -> bool:
    """Whether the pid that the driver names is this process.

    The driver counts in the initial pid namespace; elsewhere (a container) an equal number may be another process, so
    one is believed only with the device open or a title of vLLM's.
    """
    try:
        if str((proc / "self/ns/pid").readlink()) == _INITIAL_NAMESPACE:
            return True
    except OSError:
        return True
    return is_worker(process) or is_server(process) or _has_device_open(process.pid, proc)


def _has_device_open(pid: int, proc: Path) -> bool:
    try:
        with os.scandir(proc / str(pid) / "fd") as files:
            for _, file in zip(range(_MAXIMUM_FILES), files, strict=False):
                if str(Path(file.path).readlink()).startswith(("/dev/nvidia", "/dev/dxg")):
                    return True
    except OSError:
        return False
    return False


def _user(pid: int, proc: Path) -> str | Unknown:
    try:
        number = (proc / str(pid)).stat().st_uid
    except OSError:
        return Unknown(f"pid {pid} has ended")
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _age_seconds(process: Process) -> float | Unknown:
    try:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return round(max(0.0, now - process.started_ticks / os.sysconf("SC_CLK_TCK")), 1)
    except (AttributeError, OSError, ValueError):
        return Unknown("this system does not tell the time since boot")


def _container(pid: int, proc: Path) -> str | Unknown | None:
    """The first 12 characters of the container id in the cgroup path (docker, containerd, CRI-O, podman)."""
    path = proc / str(pid) / "cgroup"
    text = _bytes(path, 65_536).decode(errors="replace")
    if not text:
        return Unknown(f"{path} may not be read")
    for part in text.replace("\n", "/").split("/"):
        name = part.removesuffix(".scope").rsplit("-", 1)[-1].rsplit(":", 1)[-1]
        if len(name) == 64 and all(c in "0123456789abcdef" for c in name):
            return name[:12]
    return None


def _bytes(path: Path, maximum_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(maximum_bytes)
    except OSError:
        return b""
