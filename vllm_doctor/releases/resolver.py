"""Which vLLM releases run on a given driver, GPU, Python and libc, and what stands against the others."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from vllm_doctor import releases
from vllm_doctor.drivers import MINIMUM_DRIVER, cuda_numbers, numbers
from vllm_doctor.releases.facts import Release

# Wheels to 0.11.2 claim manylinux1, which any Linux would take; they were built on Ubuntu 20.04 (vLLM's Dockerfile),
# whose glibc is this one.
BUILT_ON_GLIBC = (2, 31)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a release must run on; None or empty where it is not known, and then nothing is held against a release.

    `capabilities` are those of the GPUs (`8.0`), `machine` is uname's (`x86_64`), `libc_version` glibc's.
    """

    driver_version: str | None = None
    capabilities: tuple[str, ...] = ()
    python_version: str | None = None
    libc_version: str | None = None
    machine: str = "x86_64"


class Verdict(msgspec.Struct, frozen=True):
    """One release and what stands against it on the target; nothing: it runs there."""

    release: Release
    obstacles: tuple[str, ...]


def verdicts(target: Target) -> Iterator[Verdict]:
    """Every release, the newest first."""
    for version in reversed(releases.known_versions()):
        found = releases.release(version)
        if found is not None:
            yield Verdict(found, tuple(obstacles(found, target)))


def newest_for(target: Target) -> Release | None:
    """The newest release that runs on the target; None where none does."""
    return next((v.release for v in verdicts(target) if not v.obstacles), None)


def obstacles(release: Release, target: Target) -> Iterator[str]:
    """What stands against a release on the target, one line each."""
    yield from _python(release, target)
    yield from _platform(release, target)
    yield from _driver(release, target)
    for capability in dict.fromkeys(target.capabilities):
        yield from _kernels(release, capability)


def runs(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether code for one of the architectures runs on a GPU of that capability: same major, no higher minor.

    Source: NVIDIA, "CUDA C++ Programming Guide", binary compatibility.
    """
    pairs = [cuda_numbers(a) for a in architectures]
    return any(p is not None and p[0] == capability[0] and p[1] <= capability[1] for p in pairs)


def _python(release: Release, target: Target) -> Iterator[str]:
    from packaging.specifiers import SpecifierSet

    needs = release.requires_python
    if target.python_version and needs and not SpecifierSet(needs).contains(target.python_version, prereleases=True):
        yield f"needs Python {needs}"


def _platform(release: Release, target: Target) -> Iterator[str]:
    tags = [tag for tag in release.wheel_tags if tag.endswith(f"_{target.machine}")]
    if not tags:
        yield f"has no wheel for {target.machine}"
        return
    has = cuda_numbers(target.libc_version or "")
    needs = min(_glibc(tag) for tag in tags)
    if has is not None and has < needs:
        yield f"needs glibc {needs[0]}.{needs[1]}"


def _glibc(tag: str) -> tuple[int, int]:
    """`manylinux_2_35_x86_64` needs glibc 2.35 (PEP 600)."""
    parts = tag.split("_")
    if parts[0] == "manylinux" and parts[1].isdecimal() and parts[2].isdecimal():
        return int(parts[1]), int(parts[2])
    return BUILT_ON_GLIBC


def _driver(release: Release, target: Target) -> Iterator[str]:
    has = numbers(target.driver_version or "")
    majors = {pair[0] for text in (release.cuda, release.wheel_cuda) if (pair := cuda_numbers(text or "")) is not None}
    needs = max((MINIMUM_DRIVER[m] for m in majors if m in MINIMUM_DRIVER), key=numbers, default=None)
    if has and needs is not None and has < numbers(needs):
        yield f"needs driver {needs} (CUDA {max(majors)})"


def _kernels(release: Release, capability: str) -> Iterator[str]:
    own = cuda_numbers(capability)
    pin = releases.torch_release(release.pins.get("torch", "").removeprefix("=="))
    wheels = (("vLLM", release.kernel_architectures), ("torch", pin.architectures if pin is not None else ()))
    for name, architectures in wheels:
        if own is not None and architectures and not runs(own, architectures):
            yield f"its {name} has no code for compute capability {capability}"
            return
