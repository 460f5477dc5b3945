"""The file systems where models, compiled kernels and temporary files go, and /dev/shm."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from vllm_doctor.facts import Docker, FileSystem, Launch, Unknown
from vllm_doctor.paths import IMAGE_HUB_CACHE, is_folder

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - asked for its size only
_TEMPORARY = "/tmp"  # noqa: S108 - what Python's tempfile takes where TMPDIR is not set


def places(variables: Mapping[str, str], launch: Launch | None) -> Iterator[tuple[str, str]]:
    """(purpose, path) of each place that a launch writes to.

    Rules: huggingface_hub `constants.py` (HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME), vLLM 0.32
    `envs.py` (VLLM_CACHE_ROOT) and its flag `--download-dir`, Python's `tempfile` (TMPDIR).
    """
    if launch is not None and launch.docker is not None:
        yield from _of_container(launch.docker)
        return
    names = {**variables, **(launch.environment if launch is not None else {})}
    home = Path(names.get("HOME") or "/")
    caches = Path(names.get("XDG_CACHE_HOME") or home / ".cache")
    hub_home = names.get("HF_HOME") or caches / "huggingface"
    hub = names.get("HF_HUB_CACHE") or names.get("HUGGINGFACE_HUB_CACHE") or Path(hub_home) / "hub"
    given = launch.value("--download-dir") if launch is not None else None
    yield "hub-cache", _absolute(given or hub, home)
    yield "compile-cache", _absolute(names.get("VLLM_CACHE_ROOT") or caches / "vllm", home)
    yield "temporary", _absolute(names.get("TMPDIR") or _TEMPORARY, home)


def _of_container(docker: Docker) -> Iterator[tuple[str, str]]:
    """What a container writes lies on the host only where it is mounted."""
    for inside, outside in docker.mounts.items():
        if inside.rstrip("/") in (IMAGE_HUB_CACHE, IMAGE_HUB_CACHE + "/hub") and outside.startswith("/"):
            yield "hub-cache", outside


def _absolute(path: str | Path, home: Path) -> str:
    first, *rest = Path(path).parts or (".",)
    return str(home.joinpath(*rest)) if first == "~" else str(Path(path).absolute())


def file_systems(variables: Mapping[str, str], launch: Launch | None) -> tuple[FileSystem, ...]:
    """The file systems of those places; one that cannot be asked is left out."""
    found = (at(purpose, path) for purpose, path in places(variables, launch))
    return tuple(f for f in found if isinstance(f, FileSystem))


def at(purpose: str, path: str) -> FileSystem | Unknown:
    """The file system that the path lies on, or will: that of its nearest parent that exists."""
    if not hasattr(os, "statvfs"):
        return Unknown("this system has no statvfs")
    problem: Exception | None = None
    for place in (Path(path), *Path(path).parents):
        status, problem = _status(place)
        if status is not None:
            unit = status.f_frsize or status.f_bsize
            total, free = status.f_blocks * unit, status.f_bavail * unit
            return FileSystem(purpose=purpose, path=path, total_bytes=total, free_bytes=free)
        if not isinstance(problem, FileNotFoundError | NotADirectoryError):
            break
    return Unknown(f"{path}: {problem}")


def _status(place: Path) -> tuple[os.statvfs_result | None, Exception | None]:
    try:
        return os.statvfs(place), None
    except (OSError, ValueError) as problem:
        return None, problem


def shared_memory() -> FileSystem | Unknown:
    """The file system where POSIX shared memory lives on Linux."""
    if not is_folder(Path(_SHARED_MEMORY)):
        return Unknown(f"this system has no {_SHARED_MEMORY}")
    return at("shm", _SHARED_MEMORY)
