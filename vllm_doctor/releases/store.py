"""The data files: runs of releases per name, one line each, so that a new release is a small diff.

An entry is `[first release, last release or null, fact]`; null means that the newest release still has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec

from vllm_doctor.releases.facts import EnvVar, Flag, TorchRelease

DATA = Path(__file__).parent / "data"

Fact = TypeVar("Fact")

Runs = dict[str, list[tuple[str, str | None, Fact]]]
"""By name: the runs of consecutive releases with the same fact, oldest first."""


class ReleaseRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept per release rather than per run."""

    date: str
    requires_python: str
    wheel_cuda: str | None = None
    wheel_tags: tuple[str, ...] = ()


class Index(msgspec.Struct, frozen=True):
    """`releases.json`: every release, oldest first; where the data comes from and the day on which it was generated."""

    source: str
    generated: str
    releases: dict[str, ReleaseRow]


class Registries(msgspec.Struct, frozen=True):
    """`registries.json`: the names that are values of flags."""

    tool_parsers: Runs[None]
    reasoning_parsers: Runs[None]
    quantization: Runs[int | None]
    attention_backends: Runs[None]


class Packages(msgspec.Struct, frozen=True):
    """`packages.json`: torch releases, and the release lists of packages that vLLM uses but does not always pin."""

    torch: dict[str, TorchRelease]
    versions: dict[str, tuple[str, ...]]


def read(name: str, kind: type[Fact]) -> Fact:
    """Decode one data file."""
    return msgspec.json.decode((DATA / name).read_bytes(), type=kind)


@cache
def index() -> Index:
    """The releases that are known."""
    return read("releases.json", Index)


@cache
def flags() -> Runs[Flag]:
    """Flags by name."""
    return read("flags.json", Runs[Flag])


@cache
def variables() -> Runs[EnvVar]:
    """Environment variables by name."""
    return read("variables.json", Runs[EnvVar])


@cache
def architectures() -> Runs[None]:
    """Model architectures by name."""
    return read("architectures.json", Runs[None])


@cache
def removed_architectures() -> Runs[str]:
    """Architectures that a release says are gone: the last release with them, or the address of their plugin."""
    return read("removed_architectures.json", Runs[str])


@cache
def registries() -> Registries:
    """Parsers, quantization methods and attention backends."""
    return read("registries.json", Registries)


@cache
def pins() -> Runs[str]:
    """Requirement specifiers by package name."""
    return read("pins.json", Runs[str])


@cache
def packages() -> Packages:
    """torch and its companions."""
    return read("packages.json", Packages)


@cache
def _positions() -> dict[str, int]:
    return {version: position for position, version in enumerate(index().releases)}


def at(runs: Mapping[str, Sequence[tuple[str, str | None, Fact]]], version: str) -> dict[str, Fact]:
    """The facts that hold for one release, by name."""
    positions = _positions()
    here, newest = positions[version], len(positions)
    found: dict[str, Fact] = {}
    for name, entries in runs.items():
        for first, last, fact in entries:
            if positions[first] <= here and here <= (newest if last is None else positions[last]):
                found[name] = fact
                break
    return found
