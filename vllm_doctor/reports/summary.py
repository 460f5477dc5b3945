"""What was examined, as a few labelled lines: host, GPUs, vLLM, Python, model, launch."""

from collections.abc import Iterator

from vllm_doctor.facts import (
    Environment,
    Gpu,
    Gpus,
    Host,
    Model,
    ModelSource,
    NvmlUnavailable,
    ServerAnswer,
    Servers,
    Unknown,
)
from vllm_doctor.reports.words import counted, line, one_line
from vllm_doctor.snapshot import Snapshot, platform_name

Row = tuple[str, str]

JOIN = " · "
MAXIMUM_SERVERS = 8
SOURCES = {
    ModelSource.FOLDER: "local folder",
    ModelSource.CACHE: "in the hub cache",
    ModelSource.HUB: "on the hub",
    ModelSource.NOWHERE: "not found",
}


def rows(snapshot: Snapshot) -> tuple[Row, ...]:
    """Label and value of every line, in order; the launch, if any, comes last and is not shortened."""
    return tuple(_rows(snapshot))


def _rows(snapshot: Snapshot) -> Iterator[Row]:
    yield "Host", _host(snapshot.host)
    yield "GPUs", _gpus(snapshot)
    yield "vLLM", _vllm(snapshot)
    in_container = snapshot.launch is not None and snapshot.launch.docker is not None
    if isinstance(snapshot.environment, Environment) and not in_container:
        yield "Python", _python(snapshot.environment)
    if snapshot.model is not None:
        yield "Model", _model(snapshot.model)
    if isinstance(snapshot.servers, Servers):
        yield from (("Server", _server(answer)) for answer in snapshot.servers.answers[:MAXIMUM_SERVERS])
    if snapshot.launch is not None:
        yield "Launch", one_line(snapshot.launch.given)


def _host(host: Host | Unknown) -> str:
    if isinstance(host, Unknown):
        return _unknown(host)
    system = host.system if isinstance(host.distribution, Unknown) else host.distribution
    parts = [line(system), line(host.machine)]
    if isinstance(host.cpu_count, int) and host.cpu_count:
        parts.append(counted(host.cpu_count, "CPU"))
    if isinstance(host.memory_total_bytes, int):
        parts.append(f"{gibibytes(host.memory_total_bytes)} RAM")
    if host.container is not None:
        parts.append(f"in {line(host.container)}")
    return JOIN.join([*parts, "WSL"] if host.wsl else parts)


def _gpus(snapshot: Snapshot) -> str:
    gpus = snapshot.gpus
    if isinstance(gpus, Unknown):
        return _unknown(gpus)
    if isinstance(gpus, NvmlUnavailable):
        return f"none seen: {line(gpus.detail)}"
    driver = "" if isinstance(gpus.driver_version, Unknown) else f"{JOIN}driver {line(gpus.driver_version)}"
    return (JOIN.join(_gpu_groups(gpus)) or "none") + driver


def _gpu_groups(gpus: Gpus) -> Iterator[str]:
    same: dict[str, int] = {}
    for gpu in gpus.devices:
        same[_gpu(gpu)] = same.get(_gpu(gpu), 0) + 1
    for text, count in same.items():
        yield text if count == 1 else f"{count} × {text}"  # noqa: RUF001 - the multiplication sign


def _gpu(gpu: Gpu) -> str:
    told = []
    if isinstance(gpu.memory_total_bytes, int):
        told.append(gibibytes(gpu.memory_total_bytes))
    if isinstance(gpu.compute_capability, str):
        told.append(f"compute capability {line(gpu.compute_capability)}")
    if gpu.lost is not None:
        told.append("lost")
    return f"{line(gpu.name)} ({', '.join(told)})" if told else line(gpu.name)


def _vllm(snapshot: Snapshot) -> str:
    launch, environment = snapshot.launch, snapshot.environment
    if launch is not None and launch.docker is not None:
        return f"{line(launch.docker.version or 'version unknown')} of the image {line(launch.docker.image)}"
    if isinstance(environment, Unknown):
        return _unknown(environment)
    build, torch = environment.vllm, environment.torch
    # What a report does not list may still be installed.
    absent = "not installed" if environment.complete else "not named in the report"
    parts = [absent if build is None else line(build.version or "version unknown")]
    if build is not None and isinstance(build.platform, str):
        parts[0] += f" ({platform_name(line(build.platform))} build)"
    parts.append("without torch" if torch is None else f"torch {line(torch.version)}")
    if environment.source_release is not None:
        parts.append("judged by its own sources, the data does not have it")
    return JOIN.join(parts)


def _python(environment: Environment) -> str:
    return f"{line(environment.python_version)}{JOIN}{line(environment.python)} ({line(environment.named_by)})"


def _model(model: Model | Unknown) -> str:
    if isinstance(model, Unknown):
        return _unknown(model)
    kind = "" if isinstance(model.config, Unknown) else JOIN.join(line(a) for a in model.config.architectures[:2])
    return JOIN.join(part for part in (line(model.given), kind, SOURCES[model.source]) if part)


def _server(answer: ServerAnswer) -> str:
    who = "" if answer.pid is None else f"pid {answer.pid}"
    if answer.failure is not None:
        return JOIN.join(part for part in (line(answer.url), who, "no answer") if part)
    kind = f"vLLM {line(answer.version)}" if answer.version is not None else line(answer.server or "")
    serves = "" if isinstance(answer.models, Unknown) else f"serves {', '.join(line(m) for m in answer.models[:5])}"
    return JOIN.join(part for part in (line(answer.url), who, kind, serves) if part)


def _unknown(fact: Unknown) -> str:
    return f"unknown: {line(fact.reason)}"


def gibibytes(size_bytes: int) -> str:
    """A size in GiB: two digits below 10, else whole."""
    size = size_bytes / 2**30
    return f"{size:.2g} GiB" if size < 10 else f"{size:.0f} GiB"
