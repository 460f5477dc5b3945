"""What every vLLM release since 0.4.0 knows and needs, generated from the releases' own metadata and source.

Importing this package loads no data; each question decodes only the files that answer it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache

import msgspec

from vllm_doctor.releases.facts import EnvVar, Flag, Release, Span, TorchRelease
from vllm_doctor.releases.replacements import (
    NEVER_EXISTED,
    removed_env_replacement,
    removed_flag_replacement,
)

__all__ = [
    "NEVER_EXISTED",
    "EnvVar",
    "Flag",
    "Release",
    "Span",
    "TorchRelease",
    "architecture_history",
    "companion_versions",
    "data_date",
    "env_history",
    "flag_history",
    "known_versions",
    "newest",
    "quantization_history",
    "reasoning_parser_history",
    "release",
    "removed_env_replacement",
    "removed_flag_replacement",
    "tool_parser_history",
    "torch_release",
    "torch_versions",
]


def known_versions() -> tuple[str, ...]:
    """Every release in the data, oldest first."""
    from vllm_doctor.releases import store

    return tuple(store.index().releases)


def newest() -> str:
    """The newest release in the data."""
    return known_versions()[-1]


def data_date() -> str:
    """The ISO date on which the data was generated."""
    from vllm_doctor.releases import store

    return store.index().generated


@cache
def release(version: str) -> Release | None:
    """One release; a local part ("+cpu", "+cu129") is ignored. None when the data does not have it."""
    from vllm_doctor.releases.reader import read_release

    return read_release(version.partition("+")[0].removeprefix("v"))


def torch_release(version: str) -> TorchRelease | None:
    """One torch release; a local part is ignored. None when the data does not have it."""
    from vllm_doctor.releases import store

    public = version.partition("+")[0]
    found = store.packages().torch.get(public)
    return None if found is None else msgspec.structs.replace(found, version=public)


def torch_versions() -> tuple[str, ...]:
    """Every torch release in the data, oldest first."""
    from vllm_doctor.releases import store

    return tuple(store.packages().torch)


def companion_versions(name: str) -> tuple[str, ...]:
    """The releases of "flash-attn" or "flashinfer-python" that the index has, oldest first; empty for other names."""
    from vllm_doctor.releases import store

    return store.packages().versions.get(name, ())


def flag_history(name: str) -> tuple[Span, ...]:
    """The spans of releases that had a flag (`--swap-space`), oldest first; empty when none had it."""
    from vllm_doctor.releases import store

    return _spans(store.flags(), name)


def env_history(name: str) -> tuple[Span, ...]:
    """The spans of releases that read an environment variable."""
    from vllm_doctor.releases import store

    return _spans(store.variables(), name)


def architecture_history(name: str) -> tuple[Span, ...]:
    """The spans of releases that had code for a model architecture."""
    from vllm_doctor.releases import store

    return _spans(store.architectures(), name)


def tool_parser_history(name: str) -> tuple[Span, ...]:
    """The spans of releases that had a tool-call parser."""
    from vllm_doctor.releases import store

    return _spans(store.registries().tool_parsers, name)


def reasoning_parser_history(name: str) -> tuple[Span, ...]:
    """The spans of releases that had a reasoning parser."""
    from vllm_doctor.releases import store

    return _spans(store.registries().reasoning_parsers, name)


def quantization_history(name: str) -> tuple[Span, ...]:
    """The spans of releases that had a quantization method."""
    from vllm_doctor.releases import store

    return _spans(store.registries().quantization, name)


def _spans(runs: Mapping[str, Sequence[tuple[str, str | None, object]]], name: str) -> tuple[Span, ...]:
    """Runs with different facts that follow each other without a gap are one span."""
    versions = known_versions()
    following = dict(itertools.pairwise(versions))
    spans: list[Span] = []
    for first, last, _ in runs.get(name, ()):
        previous = spans[-1] if spans else None
        if previous is not None and previous.last is not None and following.get(previous.last) == first:
            spans[-1] = Span(previous.first, last)
        else:
            spans.append(Span(first, last))
    return tuple(spans)
