"""The Python environment that vLLM runs in, read by its own interpreter, without importing anything of it."""

import os
from pathlib import Path

import msgspec

from vllm_doctor import redact
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import (
    Distribution,
    Environment,
    Extension,
    Facts,
    Launch,
    Shadow,
    TorchBuild,
    Unknown,
    VllmBuild,
)
from vllm_doctor.facts.environment import TOO_OLD_PYTHON
from vllm_doctor.probes.environment.interpreter import Chosen, choose, first_folder
from vllm_doctor.releases.facts import Release

__all__ = ["probe_environment"]

# The real vLLM environment takes 90 KB, 5000 distributions with their requirements some 3 MB.
MAXIMUM_BYTES = 12 * 2**20

_PLATFORM_UNTOLD = "neither the version, the name, the compiled modules nor torch tell what this vLLM is built for"

# -I and -S: no .pth file, sitecustomize or PYTHON* variable of the environment runs; -B: nothing is written.
_FLAGS = ("-I", "-S", "-B")
_CODE = (
    "import sys; sys.version_info >= (3, 8) or"
    f" sys.exit('it is Python %d.%d, {TOO_OLD_PYTHON}' % sys.version_info[:2]);"
    "standard = sys.path[:]; sys.path.append(sys.argv[1]);"
    "from inspector.main import main; main(*sys.argv[2:5], standard)"
)


def probe_environment(
    python: Path | None, *, launch: Launch | None = None, deep: bool = False, timeout_seconds: float = 20
) -> Environment | Unknown:
    """The facts of the environment of `--python`, else of the launch, else of `vllm` on PATH, else of the active one.

    Unknown with the reason where the interpreter is broken; raises DoctorError where `--python` names none. With
    `deep`, vLLM and its companions are also imported, each in a child with a time limit of its own.
    """
    chosen = choose(python, launch)
    if isinstance(chosen, Unknown):
        return chosen
    inspection = _inspected(chosen, launch, timeout_seconds)
    if isinstance(inspection, Unknown):
        if python is not None and not chosen.path.name.startswith(("python", "pypy")):
            raise DoctorError(f"--python {python}: no Python interpreter ({inspection.reason})", "name one")
        return inspection
    environment = _facts(inspection, chosen)
    environment = msgspec.structs.replace(environment, source_release=_source_release(environment.vllm))
    if deep:
        from vllm_doctor.probes.environment.trials import import_trials

        environment = msgspec.structs.replace(environment, imports=import_trials(environment, launch))
    return environment


def _source_release(build: VllmBuild | None) -> Release | None:
    """The facts of an installed vLLM that the data does not have, or that is a source build, from its own sources."""
    if build is None or build.version is None:
        return None
    from vllm_doctor import releases

    if not build.editable and build.version.partition("+")[0] in releases.known_versions():
        return None
    from vllm_doctor.releases.source import read_installed

    read = read_installed(Path(build.path))
    return msgspec.structs.replace(read, version=build.version) if read.flags else None


class _Vllm(VllmBuild, frozen=True):
    """As the child tells it: None for a platform that nothing tells."""

    platform: str | None  # type: ignore[assignment]


class _Inspection(Facts, frozen=True):
    """The child's document: foreign input, so validated like a file."""

    python: str
    python_version: str
    implementation: str
    prefix: str
    kind: str
    markers: dict[str, str]
    openssl_version: str | None
    search_path: tuple[str, ...]
    commands: dict[str, str]
    distributions: tuple[Distribution, ...]
    torch: TorchBuild | None
    vllm: _Vllm | None
    extensions: tuple[Extension, ...] | None
    shadows: tuple[Shadow, ...]
    complete: bool
    leftovers: tuple[str, ...]
    other_site_packages: tuple[str, ...]
    externally_managed: bool


def _inspected(chosen: Chosen, launch: Launch | None, timeout_seconds: float) -> _Inspection | Unknown:
    from vllm_doctor.probes.environment import child

    given = launch.environment if launch is not None else {}
    environment = {**os.environ, **{n: v for n, v in given.items() if "\0" not in v and n}}
    argv = [str(chosen.path), *_FLAGS, "-c", _CODE, str(Path(__file__).parent), first_folder(launch)]
    argv += [environment.get("PYTHONPATH", ""), environment.get("LD_LIBRARY_PATH", "")]
    try:
        ended = child.run(argv, environment, timeout_seconds, MAXIMUM_BYTES)
    except OSError as problem:
        return Unknown(f"{chosen.path} cannot be started: {problem.strerror or problem}")
    if ended.too_much:
        return Unknown(f"{chosen.path} printed more than {MAXIMUM_BYTES // 2**20} MiB")
    if ended.status is None:
        return Unknown(f"{chosen.path} did not answer within {timeout_seconds:g} s")
    if b"Unknown option: -I" in ended.errors:
        return Unknown(f"{chosen.path} is older than Python 3.4, {TOO_OLD_PYTHON}")
    if ended.status != 0:
        return Unknown(f"{chosen.path} {_ending(ended.status)}: {redact.line(ended.last_line) or 'it printed nothing'}")
    return decoded(ended.output, chosen.path)


def decoded(output: bytes, python: Path) -> _Inspection | Unknown:
    """The child's document; Unknown where it is anything else."""
    try:
        return msgspec.json.decode(output, type=_Inspection)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        said = redact.line(output[:400].decode("utf-8", "replace"), 120)
        return Unknown(f"{python} did not answer as a Python interpreter does ({redact.line(str(problem))}): {said!r}")


def _ending(status: int) -> str:
    import signal

    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _facts(found: _Inspection, chosen: Chosen) -> Environment:
    vllm = None
    if found.vllm is not None:
        fields = msgspec.structs.asdict(found.vllm)
        fields["platform"] = found.vllm.platform or Unknown(_PLATFORM_UNTOLD)
        vllm = VllmBuild(**fields)
    fields = msgspec.structs.asdict(found)
    fields["openssl_version"] = found.openssl_version or Unknown("this Python has no working ssl module")
    fields["vllm"] = vllm
    if found.extensions is None:
        fields["extensions"] = Unknown("compiled modules are read on 64-bit little-endian Linux only")
    return Environment(named_by=chosen.named_by, **fields)
