"""The vLLM servers in the process table: command line, model, port, age."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vllm_doctor import redact
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Launch, LaunchForm, Server, Unknown
from vllm_doctor.probes.host import files
from vllm_doctor.probes.servers import listeners

MAXIMUM_PROCESSES = 50_000
MAXIMUM_COMMAND_BYTES = 32_768
MAXIMUM_SERVERS = 100

# The doctor's own names; a child of it carries its command line until it has started another program.
OURS = frozenset({"vllm-doctor", "vllm_doctor"})


class Process(NamedTuple):
    """A process whose command line is that of a server."""

    pid: int
    words: tuple[str, ...]


def servers(ports: frozenset[int] | None) -> tuple[Server, ...]:
    """The servers of this host; `ports` are those that somebody listens on, None where that is not known."""
    return tuple(_server(process, ports) for process in processes())


def processes() -> tuple[Process, ...]:
    """The processes that are servers; a server's own children and what only wraps it are left out."""
    found = {process.pid: process for process in _candidates()}
    parents = {pid: _parent(pid) for pid in found}
    wraps = {parent for pid, parent in parents.items() if parent in found and not is_program(found[parent].words)}
    kept = [p for pid, p in found.items() if pid not in wraps and (parents[pid] not in found or parents[pid] in wraps)]
    return tuple(kept[:MAXIMUM_SERVERS])


def _candidates() -> Iterator[Process]:
    for pid in listeners.pids()[:MAXIMUM_PROCESSES]:
        data = files.head(f"/proc/{pid}/cmdline", MAXIMUM_COMMAND_BYTES)
        if not data or b"vllm" not in data:
            continue
        words = tuple(word for word in data.decode("utf-8", "replace").split("\0") if word)
        if launch_words(words):
            yield Process(pid, words)


def launch_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words from `vllm serve` or `-m vllm...api_server` on; empty where the command line starts no server.

    Only the first words count (interpreter, options, program): an editor or a pager may have the same words further on,
    and so has the doctor itself, which is asked about a launch.
    """
    for place, word in enumerate(words[:6]):
        following = words[place + 1] if place + 1 < len(words) else ""
        if word.rsplit("/", 1)[-1] in OURS:
            return ()
        if word.rsplit("/", 1)[-1] == "vllm" and following == "serve":
            return ("vllm", *words[place + 1 :])
        if word == "-m" and following.startswith("vllm.entrypoints.") and following.endswith("api_server"):
            return ("python", *words[place:])
    return ()


def is_program(words: tuple[str, ...]) -> bool:
    """Whether the process is the server itself, not what started it (`timeout 9 vllm serve`, `uv run vllm serve`)."""
    program = words[0].rsplit("/", 1)[-1]
    return program.startswith(("python", "pypy", "vllm"))


def _parent(pid: int) -> int | None:
    stat = files.head(f"/proc/{pid}/stat", 1024) or b""
    fields = stat[stat.rfind(b")") + 1 :].split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else None


def _server(process: Process, ports: frozenset[int] | None) -> Server:
    launch = _launch(process)
    port = _port(launch)
    folder = Path(f"/proc/{process.pid}")
    apart = _has_other_network(folder)
    return Server(
        pid=process.pid,
        user=_user(folder),
        command=redact.line(launch.given if launch is not None else " ".join(redact.words(process.words))),
        model=launch.model if launch is not None else None,
        port=port,
        age_seconds=_age_seconds(process.pid),
        listening=None if ports is None or port is None or apart else port in ports,
        other_network=apart,
        tls=launch is not None and launch.has("--ssl-certfile"),
    )


def _launch(process: Process) -> Launch | None:
    from vllm_doctor.launch.parse import parse_launch

    try:
        folder = Path(f"/proc/{process.pid}/cwd").readlink()
    except OSError:
        folder = Path("/")
    try:
        return parse_launch(launch_words(process.words), folder=folder)
    except DoctorError:
        return None


def _port(launch: Launch | None) -> int | None:
    """The port that the command line says or implies; None for a Unix socket or what cannot be read."""
    if launch is None or launch.has("--uds") or launch.form is LaunchForm.DOCKER:
        return None
    return launch.port


def _has_other_network(folder: Path) -> bool:
    """Whether the process lives in another network namespace; one that may not be asked counts as here."""
    try:
        return (folder / "ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    except OSError:
        return False


def _user(folder: Path) -> str | Unknown:
    try:
        return listeners.user_name(folder.stat().st_uid)
    except OSError as problem:
        return Unknown(f"its owner cannot be read: {problem.strerror}")


def _age_seconds(pid: int) -> float | Unknown:
    """The time since the process started: field 22 of its stat, in clock ticks since boot (proc(5))."""
    stat = files.head(f"/proc/{pid}/stat", 1024) or b""
    fields = stat[stat.rfind(b")") + 1 :].split()
    if len(fields) < 20 or not fields[19].isdigit():
        return Unknown("its start cannot be read")
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return round(max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started), 1)
