"""The snapshot: every fact of one machine at one time, to and from a file."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from vllm_doctor import __version__, redact
from vllm_doctor.errors import InputFileError
from vllm_doctor.facts import (
    Environment,
    Gpus,
    Host,
    Launch,
    Model,
    NvmlUnavailable,
    Section,
    Servers,
    Unknown,
)

SCHEMA = "vllm-doctor/snapshot/1"

# A snapshot of a host with 8 GPUs and 400 distributions takes about 0.5 MB; more than this is no snapshot.
MAXIMUM_BYTES = 32 * 2**20

S = TypeVar("S", bound=msgspec.Struct)


class Snapshot(Section, frozen=True):
    """All facts. A section is Unknown where it could not be had, and None where there was nothing to look at.

    `launch` is None without a launch command, `model` where no launch names one, `environment` never: an environment
    that was not found is Unknown. `taken_at` is ISO 8601, UTC. `failed_probes` names the probes that raised or did not
    answer in time (not those that could say why a fact is not to be had).
    """

    host: Host | Unknown
    gpus: Gpus | NvmlUnavailable | Unknown
    environment: Environment | Unknown
    servers: Servers | Unknown
    launch: Launch | None = None
    model: Model | Unknown | None = None
    schema: str = SCHEMA
    doctor_version: str = __version__
    taken_at: str = ""
    failed_probes: tuple[str, ...] = ()

    @property
    def variables(self) -> Mapping[str, str | None]:
        """The environment variables that the launch will see; None for a value that is not harmless.

        A container does not inherit those of the host.
        """
        given = {} if self.launch is None else self.launch.environment
        if self.launch is not None and self.launch.docker is not None:
            return given
        inherited = {} if isinstance(self.host, Unknown) else self.host.environment
        return {**inherited, **given}

    @property
    def vllm_version(self) -> str | None:
        """The vLLM release that the launch will run: the image's for a container, else the environment's."""
        if self.launch is not None and self.launch.docker is not None:
            return self.launch.docker.version
        if isinstance(self.environment, Environment) and self.environment.vllm is not None:
            return self.environment.vllm.version
        return None

    @property
    def platform(self) -> str | None:
        """What the examined vLLM is built for: cuda, rocm, xpu, tpu, cpu; None where that is not known."""
        if self.launch is not None and self.launch.docker is not None:
            return _image_platform(self.launch.docker.image)
        if isinstance(self.environment, Unknown):
            return None
        build, torch = self.environment.vllm, self.environment.torch
        if build is not None and isinstance(build.platform, str):
            return build.platform
        return torch.platform if torch is not None else None


def platform_name(platform: str) -> str:
    """How a platform is written: CUDA, CPU, XPU, TPU, but ROCm."""
    return "ROCm" if platform == "rocm" else platform.upper()


def _image_platform(image: str) -> str | None:
    name = image.lower()
    for word, platform in (("rocm", "rocm"), ("cpu", "cpu"), ("xpu", "xpu"), ("tpu", "tpu"), ("vllm-openai", "cuda")):
        if word in name:
            return platform
    return None


def write(snapshot: Snapshot, path: Path) -> None:
    """Write the snapshot to a file, with user names and home folders masked (secrets never were in it)."""
    document = msgspec.json.format(msgspec.json.encode(redact.identity(snapshot)), indent=1)
    path.write_bytes(document + b"\n")


def read(path: Path) -> Snapshot:
    """Read a snapshot file.

    Raises InputFileError where it is missing, too large, no snapshot, or of another schema version.
    """
    data = read_bounded(path, MAXIMUM_BYTES)
    head = _decode(data, _Head, path)
    if head.schema != SCHEMA:
        raise InputFileError(
            f"{path}: schema {redact.text(head.schema)[:80]!r}, this vllm-doctor {__version__} reads {SCHEMA!r}",
            "take the snapshot again with this version, or read it with the version that wrote it",
        )
    return redact.clean(_decode(data, Snapshot, path))


def read_bounded(path: Path, maximum_bytes: int) -> bytes:
    """The bytes of a regular file; raises InputFileError where it cannot be read or is larger than that."""
    try:
        if path.exists() and not path.is_file():
            raise InputFileError(f"{path}: not a regular file", "name a file")
        with path.open("rb") as file:
            data = file.read(maximum_bytes + 1)
    except OSError as problem:
        raise InputFileError(f"{path}: {problem.strerror}", "name a file that can be read") from None
    if len(data) > maximum_bytes:
        raise InputFileError(f"{path}: larger than {maximum_bytes // 2**20} MiB", "name the right file")
    return data


class _Head(msgspec.Struct):
    schema: str


def _decode(data: bytes, kind: type[S], path: Path) -> S:
    limit = sys.getrecursionlimit()
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as problem:
        what = f"{path}: not a snapshot: {redact.text(str(problem))[:200]}"
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        what = f"{path}: not whole JSON: {redact.text(str(problem))[:200]}"
    except RecursionError:
        what = f"{path}: nested deeper than {limit} levels"
    raise InputFileError(what, "take it again with `vllm-doctor snapshot -o FILE`")
