"""Checks on what vLLM can be installed on at all: the Python version, the system, the processor and its libc."""

from collections.abc import Iterator
from pathlib import PurePath

from vllm_doctor import releases
from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Environment, Host, Unknown, VllmBuild
from vllm_doctor.facts.environment import TOO_OLD_PYTHON
from vllm_doctor.finding import Finding, Fix, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import damaged, requirements

# The last release for a Python and what pip does with it (Requires-Python of all releases from 0.4.0 to 0.33.0; up to
# 0.8.3 it has no upper bound, so that pip falls back to those on a Python that no release supports).
LAST_RELEASE = {(3, 8): "0.6.3.post1", (3, 9): "0.11.0"}
OLDEST_PYTHON = (3, 8)
NEWEST_PYTHON = (3, 14)


@check("python-version", causes=("python-unsupported",), needs=())
def python_version(snapshot: Snapshot) -> Iterator[Finding]:
    """This Python is not among those that vLLM supports.

    Why: every release of vLLM declares the Pythons it supports (Requires-Python). pip does not say so plainly: on a
    Python that is too new or too old it takes an old release of vLLM, or finds "no matching distribution".
    Fix: make an environment with a supported Python, 3.12 for example.
    """
    unread = snapshot.environment
    if isinstance(unread, Unknown):
        yield from _too_old_to_be_read(snapshot, unread)
        return
    environment = requirements.examined(snapshot)
    if environment.vllm is not None:
        yield from _outside(environment, environment.vllm)
        return
    if snapshot.launch is None:
        raise NotApplicable(requirements.absence(environment))
    yield from _installable(environment)


def _too_old_to_be_read(snapshot: Snapshot, unread: Unknown) -> Iterator[Finding]:
    if not unread.reason.endswith(TOO_OLD_PYTHON):
        raise NotKnown(unread.reason)
    if snapshot.launch is None or snapshot.launch.docker is not None:
        raise NotApplicable("no launch needs this Python")
    yield error(
        "python-unsupported",
        "This Python is too old: no release of vLLM ever supported it",
        evidence=(unread.reason, "vLLM releases are for Python 3.8 to 3.14, current ones for 3.11 to 3.14"),
        fixes=(_other_python(),),
    )


def _outside(environment: Environment, build: VllmBuild) -> Iterator[Finding]:
    own = requirements.own_distribution(environment)
    requires = own.requires_python if own is not None else None
    if not requires and (released := releases.release(build.version or "")) is not None:
        requires = released.requires_python
    if not requires:
        raise NotKnown(
            "which Pythons this vLLM supports is not known: its metadata is not at hand, and it is no known release"
        )
    if requirements.satisfies(environment.python_version, requires):
        return
    who = f"vllm {build.version or ''}".rstrip()
    yield warning(
        "python-unsupported",
        f"{who} does not support Python {environment.python_version}",
        evidence=(f"{who} requires Python {requires}", f"{environment.python} is Python {environment.python_version}"),
        fixes=(_other_python(),),
    )


def _installable(environment: Environment) -> Iterator[Finding]:
    mine = requirements.release(environment.python_version)[:2]
    seen = f"{environment.python} is Python {environment.python_version}"
    if mine < OLDEST_PYTHON or mine > NEWEST_PYTHON:
        yield error(
            "python-unsupported",
            f"No vLLM release supports Python {environment.python_version}",
            evidence=(seen, "vLLM releases are for Python 3.8 to 3.14, current ones for 3.11 to 3.14"),
            fixes=(_other_python(),),
        )
    elif mine in LAST_RELEASE:
        yield warning(
            "python-unsupported",
            f"On Python {environment.python_version} pip installs vLLM {LAST_RELEASE[mine]}, which is old",
            evidence=(seen, f"the last vLLM for this Python is {LAST_RELEASE[mine]}"),
            fixes=(_other_python(),),
        )


def _other_python() -> Fix:
    return Fix(title="Make an environment with a Python that vLLM supports", command=("uv", "venv", "--python", "3.12"))


# The manylinux tag of the wheels, by the first release that carries it: the glibc they need at least. Up to 0.11.2 the
# tag says manylinux1, and the wheels were built on Ubuntu 20.04 (Dockerfile: FROM nvidia/cuda:...-ubuntu20.04).
WHEEL_GLIBC = (
    ((0, 22, 0), (2, 28)),
    ((0, 21, 0), (2, 24)),
    ((0, 20, 0), (2, 35)),
    ((0, 12, 0), (2, 31)),
    ((0, 4, 0), (2, 31)),
)
NEWEST_NEEDS = (2, 28)
MACHINES = frozenset({"x86_64", "amd64", "aarch64", "arm64"})


@check("glibc", causes=("platform-unsupported",), needs=("host", "environment"))
def glibc(snapshot: Snapshot) -> Iterator[Finding]:
    """There is no vLLM wheel for this system, processor or C library.

    Why: vLLM's wheels are for Linux with glibc, on x86_64 and (from 0.10.2 on) aarch64. pip then finds "no matching
    distribution", or tries to build the source, which needs nvcc. The wheels need glibc 2.31 up to 0.19, 2.35 for 0.20,
    2.28 from 0.22 on. A vLLM that is installed and imports is stronger evidence than this rule, which is then silent.
    Fix: use vLLM's container image, a newer distribution, or on Windows WSL 2.
    """
    environment = requirements.examined(snapshot)
    host = snapshot.host
    if not isinstance(host, Host):
        raise NotApplicable("no host was read")
    if environment.vllm is not None:
        yield from _for_another_processor(environment, host)
        yield from _installed_and_failing(environment, host)
        return
    if snapshot.launch is None:
        raise NotApplicable(requirements.absence(environment))
    yield from _no_wheel(host)


def _no_wheel(host: Host) -> Iterator[Finding]:
    if host.system != "Linux":
        yield _unsupported(f"vLLM has no build for {host.system}", f"the system is {host.system} ({host.machine})")
        return
    if host.machine.lower() not in MACHINES:
        yield _unsupported(f"vLLM has no wheel for {host.machine} processors", f"the processor is {host.machine}")
        return
    libc = known(host.libc)
    if libc != "glibc":
        yield _unsupported(f"vLLM has no wheel for {libc}: its wheels need glibc", f"the C library is {libc}")
        return
    has = _pair(known(host.libc_version))
    if has is not None and has < NEWEST_NEEDS:
        needs = ".".join(map(str, NEWEST_NEEDS))
        yield _unsupported(
            f"glibc {host.libc_version} is too old for vLLM's wheels: they need {needs}",
            f"the C library is glibc {host.libc_version}; vLLM 0.22 and later need {needs}, 0.12 to 0.19 need 2.31",
        )


def _for_another_processor(environment: Environment, host: Host) -> Iterator[Finding]:
    """A copied environment, or a wheel forced in with `--platform`: its modules are for another machine."""
    module = damaged.for_other_processor(environment)
    if module is not None:
        yield error(
            "platform-unsupported",
            f"{module.owner}'s {PurePath(module.path).name} is built for another processor than this {host.machine}",
            evidence=(f"{module.path}: {module.problem}", "the loader refuses it: wrong ELF class or machine"),
            fixes=(
                Fix(
                    title=f"Make the environment anew on this machine: {environment.prefix} was made for another one",
                    command=("uv", "venv", "--python", ".".join(environment.python_version.split(".")[:2])),
                ),
            ),
        )


def _installed_and_failing(environment: Environment, host: Host) -> Iterator[Finding]:
    """Only where an import was tried and ended in the C library: else an installed vLLM contradicts the rule."""
    said = [t for t in environment.imports or () if t.error is not None and "GLIBC_" in t.error]
    build = environment.vllm
    if not said or build is None:
        return
    mine = requirements.release(build.version)
    needs = next((n for since, n in WHEEL_GLIBC if mine >= since), None)
    yield error(
        "platform-unsupported",
        f"{said[0].module} needs a newer C library than glibc {host.libc_version}",
        evidence=(
            f"importing {said[0].module}: {(said[0].error or '').splitlines()[-1][:200]}",
            f"the wheels of vllm {build.version} need glibc "
            + (".".join(map(str, needs)) if needs else "of their time"),
        ),
        fixes=_elsewhere(),
    )


def _unsupported(title: str, seen: str) -> Finding:
    return error(
        "platform-unsupported",
        title,
        evidence=(seen, "vLLM's wheels are for Linux with glibc, on x86_64 and aarch64"),
        fixes=_elsewhere(),
    )


def _elsewhere() -> tuple[Fix, ...]:
    return (
        Fix(title="Run vLLM's own image, which brings its C library", command=("docker", "pull", "vllm/vllm-openai")),
        Fix(title="Or use a newer Linux (glibc 2.28 or later), on Windows WSL 2"),
    )


def _pair(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return int(parts[0]), int(parts[1])
