"""What a launch says in numbers: workers, release, settings from its environment; shared by several checks."""

from vllm_doctor.facts import Host, Launch
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import requirements

MIB = 2**20
GIB = 2**30


def gib(size_bytes: int) -> str:
    """A size as a reader likes it."""
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB // 10 else f"{size_bytes // MIB} MiB"


def release_of(snapshot: Snapshot) -> tuple[int, int, int] | None:
    """The release of the vLLM that will run; None where it is not known."""
    release = requirements.release(snapshot.vllm_version)
    return None if release == (0, 0, 0) else release


def workers(launch: Launch) -> int:
    """The workers of one replica: tensor parallel times pipeline parallel."""
    return (launch.number("--tensor-parallel-size") or 1) * (launch.number("--pipeline-parallel-size") or 1)


def setting(host: Host, launch: Launch, name: str) -> str | None:
    """An environment variable as the server will see it: the launch's own, else that of this shell (not in docker)."""
    if name in launch.environment:
        return launch.environment[name]
    return None if launch.docker is not None else host.environment.get(name)


def is_pooling(launch: Launch) -> bool | None:
    """Whether the launch asks for a pooling server (no chat); None where the model decides (`--runner auto`)."""
    runner = launch.value("--runner")
    if runner in ("pooling", "generate"):
        return runner == "pooling"
    if launch.value("--convert") in ("embed", "classify", "reward"):
        return True
    task = launch.value("--task")
    if task in ("embed", "embedding", "classify", "score", "reward"):
        return True
    return False if task == "generate" else None
