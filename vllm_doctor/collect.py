"""Runs the probes side by side and joins what they wrote down into one clean snapshot."""

import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from vllm_doctor import redact
from vllm_doctor.facts import Environment, Gpus, Host, Launch, Model, NvmlUnavailable, Servers, Unknown
from vllm_doctor.paths import IMAGE_HUB_CACHE
from vllm_doctor.probes.running import Running
from vllm_doctor.snapshot import Snapshot

T = TypeVar("T")

# Called with the name of a probe when it starts ("started") and when its facts are there ("done", "unknown").
Progress = Callable[[str, str], None]

# What --deep adds to the limit of the environment's probe: each of its imports has a limit of its own (two minutes).
DEEP_SECONDS = 900.0


class Request(Struct, frozen=True, kw_only=True):
    """What to look at: the launch as words (empty: none), the environment, whether the network may be asked.

    `python` is an interpreter or the folder of an environment. `timeout_seconds` is each probe's own limit. `folder`
    is where relative paths of the launch start.
    """

    launch_words: tuple[str, ...] = ()
    python: Path | None = None
    url: str | None = None
    offline: bool = False
    deep: bool = False
    timeout_seconds: float = 30.0
    folder: Path


def silent(_name: str, _state: str) -> None:
    """Show no progress."""


def collect(request: Request, progress: Progress = silent) -> Snapshot:
    """Every fact of this machine, secrets masked; raises DoctorError where the request itself is wrong."""
    launch = _parse(request)
    probes = _Probes(request, progress)
    host = probes.start("host", lambda: _host(launch))
    gpus = probes.start("GPUs", _gpus)
    environment = probes.start("Python environment", lambda: _environment(request, launch))
    servers = probes.start("servers", lambda: _servers(request, launch))
    model = None
    if launch is not None and launch.model is not None:
        model = probes.start("model", lambda: _model(request, launch))
    snapshot = Snapshot(
        host=probes.result(host),
        gpus=probes.result(gpus),
        environment=probes.result(environment, DEEP_SECONDS if request.deep else 0),
        servers=probes.result(servers),
        launch=launch,
        model=None if model is None else probes.result(model),
        taken_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        failed_probes=tuple(probes.failed),
    )
    return redact.clean(snapshot)


class _Probes:
    """The probes on their way, with one deadline for all, since they run side by side."""

    def __init__(self, request: Request, progress: Progress) -> None:
        self.failed: list[str] = []
        self._deadline = time.monotonic() + request.timeout_seconds
        self._progress = progress

    def start(self, name: str, probe: Callable[[], T]) -> Running[T]:
        self._progress(name, "started")
        return Running(name, probe)

    def result(self, running: Running[T], extra_seconds: float = 0) -> T | Unknown:
        value = running.result(max(0.1, self._deadline + extra_seconds - time.monotonic()))
        if running.failed:
            self.failed.append(running.name)
        self._progress(running.name, "unknown" if isinstance(value, Unknown) else "done")
        return value


def _parse(request: Request) -> Launch | None:
    if not request.launch_words:
        return None
    from vllm_doctor.launch.parse import parse_launch

    return parse_launch(request.launch_words, folder=request.folder)


def _host(launch: Launch | None) -> Host:
    from vllm_doctor.probes.host import probe_host

    return probe_host(launch=launch)


def _gpus() -> Gpus | NvmlUnavailable:
    from vllm_doctor.probes.gpus import probe_gpus

    return probe_gpus()


def _environment(request: Request, launch: Launch | None) -> Environment | Unknown:
    if launch is not None and launch.docker is not None and request.python is None:
        return Unknown(f"the launch runs inside the image {launch.docker.image}: its Python environment is not here")
    from vllm_doctor.probes.environment import probe_environment

    return probe_environment(
        request.python, launch=launch, deep=request.deep, timeout_seconds=request.timeout_seconds * 0.9
    )


def _servers(request: Request, launch: Launch | None) -> Servers:
    from vllm_doctor.probes.servers import probe_servers

    timeout_seconds = min(5.0, request.timeout_seconds / 2)
    if launch is None:
        return probe_servers(request.url, timeout_seconds=timeout_seconds)
    return probe_servers(
        request.url,
        ports=() if launch.port is None else (launch.port,),
        address=launch.value("--host") if launch.docker is None else None,
        timeout_seconds=timeout_seconds,
    )


def _model(request: Request, launch: Launch) -> Model | Unknown:
    from vllm_doctor.probes.model import probe_model

    name = launch.model or ""
    variables = dict(os.environ) | dict(launch.environment)
    if launch.docker is not None:
        variables = _container_variables(launch.environment, launch.docker.mounts, variables)
        if name.startswith("/"):
            outside = _outside(name, launch.docker.mounts)
            if outside is None:
                return Unknown(f"{name} is a path inside the container, and no mount brings it from here")
            name = outside
    return probe_model(name, launch=launch, offline=request.offline, variables=variables, folder=request.folder)


def _container_variables(
    inside: Mapping[str, str], mounts: Mapping[str, str], outside: Mapping[str, str]
) -> dict[str, str]:
    """The variables that decide where the hub cache is, as paths of this host."""
    variables = dict(outside)
    home = inside.get("HF_HOME", IMAGE_HUB_CACHE)
    mounted = _outside(home, mounts)
    if mounted is not None:
        variables["HF_HOME"] = mounted
    return variables


def _outside(path: str, mounts: Mapping[str, str]) -> str | None:
    """The path on the host of a path inside the container, through the mount that covers it most closely."""
    for inside in sorted(mounts, key=len, reverse=True):
        root = inside.rstrip("/")
        if path == root or path.startswith(root + "/"):
            return mounts[inside].rstrip("/") + path[len(root) :]
    return None
