"""Puts one release together from the runs of the data files."""

from __future__ import annotations

import msgspec

from vllm_doctor.releases import store
from vllm_doctor.releases.facts import EnvVar, Flag, Release
from vllm_doctor.releases.kernels import kernel_architectures


def read_release(version: str) -> Release | None:
    """The facts of one release by its public version; None when the data does not have it."""
    row = store.index().releases.get(version)
    if row is None:
        return None
    flags = named_flags(store.at(store.flags(), version))
    pins = store.at(store.pins(), version)
    registries = store.registries()
    return Release(
        version=version,
        date=row.date,
        requires_python=row.requires_python,
        cuda=_torch_cuda(pins),
        wheel_cuda=row.wheel_cuda,
        wheel_tags=row.wheel_tags,
        kernel_architectures=kernel_architectures(version, tuple(store.index().releases)),
        pins=pins,
        flags=flags,
        env=_named_variables(store.at(store.variables(), version)),
        architectures=frozenset(store.at(store.architectures(), version)),
        removed_architectures=store.at(store.removed_architectures(), version),
        tool_parsers=tuple(store.at(registries.tool_parsers, version)),
        reasoning_parsers=tuple(store.at(registries.reasoning_parsers, version)),
        quantization=store.at(registries.quantization, version),
        attention_backends=tuple(store.at(registries.attention_backends, version)),
        kv_cache_dtypes=kv_cache_dtypes(flags),
    )


def named_flags(flags: dict[str, Flag]) -> dict[str, Flag]:
    """Flags that know their own names (the files keep the name once, as the key)."""
    return {name: msgspec.structs.replace(flag, name=name) for name, flag in flags.items()}


def kv_cache_dtypes(flags: dict[str, Flag]) -> tuple[str, ...]:
    """What `--kv-cache-dtype` takes."""
    flag = flags.get("--kv-cache-dtype")
    return flag.choices or () if flag else ()


def _named_variables(variables: dict[str, EnvVar]) -> dict[str, EnvVar]:
    return {name: msgspec.structs.replace(variable, name=name) for name, variable in variables.items()}


def _torch_cuda(pins: dict[str, str]) -> str | None:
    torch = store.packages().torch.get(pins.get("torch", "").removeprefix("=="))
    return torch.cuda if torch else None
