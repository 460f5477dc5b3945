"""The configurations that `verify --matrix` walks on this platform, and what it leaves out with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, structs
from packaging import version

from vllm_doctor import releases
from vllm_doctor.facts import Environment, Gpus
from vllm_doctor.snapshot import Snapshot

if TYPE_CHECKING:
    from vllm_doctor.releases.facts import Release

Capability = tuple[int, int]


class Configuration(Struct, frozen=True, kw_only=True):
    """One way to serve the canary: what its launch has besides `canary.flags` and `canary.variables`."""

    name: str
    flags: tuple[str, ...] = ()
    variables: Mapping[str, str] = {}


class Backend(Struct, frozen=True):
    """What an attention backend of CUDA takes: the lowest compute capability, dtypes, and the package that it needs."""

    capability: Capability
    dtypes: tuple[str, ...]
    package: str | None = None


# How the names of the V1 engine's backends ended while there were two engines.
_SECOND_ENGINE = "_VLLM_V1"

_HALVES = ("bfloat16", "float16")
_ALL = (*_HALVES, "float32")

# supports_compute_capability and supported_dtypes of vllm/v1/attention/backends/*.py, 0.32.0 (FlashInfer: 7.5 until
# its fault on Turing, flashinfer issue 3620); XFORMERS was V0's and is gone since 0.12.
_BACKENDS = {
    "FLASH_ATTN": Backend((8, 0), _HALVES),
    "FLASHINFER": Backend((8, 0), _HALVES, "flashinfer-python"),
    "TRITON_ATTN": Backend((7, 0), _ALL),
    "FLEX_ATTENTION": Backend((7, 0), _ALL),
    "XFORMERS": Backend((7, 0), _ALL, "xformers"),
}

# `--kv-cache-dtype fp8` needs FP8 arithmetic: Ada and newer.
_CPU_FP8 = version.parse("0.32.0")
_FP8_CAPABILITY = (8, 9)
_BFLOAT16_CAPABILITY = (8, 0)

# Each is one name or the start or end of names: why a backend that the release names is nothing for the canary.
_OTHERS = (
    (("ROCM_", "HPU_", "XPU_", "CPU_", "PALLAS", "IPEX", "OPENVINO", "AMX_"), "for another platform"),
    (("TORCH_SDPA", "NO_ATTENTION", "CUSTOM"), "no decoder's attention on this platform"),
    (("MLA",), "for models with latent attention"),
    (("SPARSE", "MSA", "DSA", "DSV4", "DUAL_CHUNK", "DIFFERENTIAL", "DIFFKV"), "for models with such an attention"),
    (("TURBOQUANT", "ULTRAQUANT"), "for KV cache types of its own"),
)


def configurations(snapshot: Snapshot) -> tuple[Configuration, ...]:
    """What is walked, besides the canary's plain launch."""
    return tuple(found for _, found in _considered(snapshot) if isinstance(found, Configuration))


def left_out(snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
    """What is not walked, and why: names that share a reason stand together."""
    reasons: dict[str, list[str]] = {}
    for name, found in _considered(snapshot):
        if isinstance(found, str):
            reasons.setdefault(found, []).append(name)
    return tuple((", ".join(names), reason) for reason, names in reasons.items())


def _considered(snapshot: Snapshot) -> Iterator[tuple[str, Configuration | str]]:
    release = _release(snapshot)
    if release is None:
        yield "everything but the plain launch", "what this vLLM takes is not known"
    elif snapshot.platform == "cpu":
        yield from _on_cpu(release)
    elif snapshot.platform == "cuda":
        yield from _on_cuda(snapshot, release)
    else:
        yield "everything but the plain launch", f"not known for {snapshot.platform or 'this platform'}"


def _release(snapshot: Snapshot) -> Release | None:
    environment = snapshot.environment
    if isinstance(environment, Environment) and environment.source_release is not None:
        return environment.source_release
    return releases.release(snapshot.vllm_version or "")


def _on_cpu(release: Release) -> Iterator[tuple[str, Configuration | str]]:
    # Of CPU_ATTN (v1/attention/backends/cpu_attn.py, 0.32.0): three dtypes, blocks of multiples of 32, an FP8 cache.
    own_kernels = "CPU_ATTN" in release.attention_backends
    for dtype in _ALL:
        if dtype == "float16" and not own_kernels:
            yield dtype, "not known of this release on a CPU"
        else:
            yield from _plain(dtype, "--dtype", dtype)
    for size in ("32", "64", "256"):
        if own_kernels:
            yield from _plain(f"block size {size}", "--block-size", size)
        else:
            yield f"block size {size}", "not known of this release on a CPU"
    if version.parse(release.version) >= _CPU_FP8:
        yield from _plain("FP8 KV cache", "--kv-cache-dtype", "fp8")
    else:
        yield "FP8 KV cache", "not known of this release on a CPU"
    yield from _chunked()
    eager = release.flags.get("--enforce-eager")
    if eager is not None and eager.negatable:
        yield from _plain("compiled", "--no-enforce-eager")
    else:
        yield "compiled", "this release has no --no-enforce-eager"
    yield "attention backends", "a CPU has one, and vLLM takes it whatever is asked for"


def _on_cuda(snapshot: Snapshot, release: Release) -> Iterator[tuple[str, Configuration | str]]:
    capability = _capability(snapshot)
    if capability is None:
        yield "dtypes and attention backends", "the compute capability of the GPUs is not known"
        return
    for name in release.attention_backends:
        backend = _BACKENDS.get(name.removesuffix(_SECOND_ENGINE))
        reason = _unfit(snapshot, release, name, capability)
        if backend is None or reason:
            yield name, reason
        else:
            yield from _on_backend(backend, _asking(release, name), capability)
    yield from _chunked()
    if capability >= _FP8_CAPABILITY:
        yield from _plain("FP8 KV cache", "--kv-cache-dtype", "fp8")
    else:
        yield "FP8 KV cache", _too_old(_FP8_CAPABILITY, capability)


def _on_backend(
    backend: Backend, asked: Configuration, capability: Capability
) -> Iterator[tuple[str, Configuration | str]]:
    """Every dtype, and one without compiled code and CUDA graphs."""
    for dtype in _ALL:
        name = f"{asked.name} {dtype}"
        if dtype not in backend.dtypes:
            yield name, "this backend does not take it"
        elif dtype == "bfloat16" and capability < _BFLOAT16_CAPABILITY:
            yield name, _too_old(_BFLOAT16_CAPABILITY, capability)
        else:
            yield name, structs.replace(asked, name=name, flags=(*asked.flags, "--dtype", dtype))
    name = f"{asked.name} eager"
    yield name, structs.replace(asked, name=name, flags=(*asked.flags, "--enforce-eager"))


def _unfit(snapshot: Snapshot, release: Release, name: str, capability: Capability) -> str:
    """Why a backend is not walked; nothing where it is."""
    backend = _BACKENDS.get(name.removesuffix(_SECOND_ENGINE))
    if backend is None:
        return next(
            (why for words, why in _OTHERS if any(word in name for word in words)), "what it takes is not known"
        )
    # From 0.8.2 to 0.10.2 there are two engines with names of their own; before that the second was a trial.
    two = f"TRITON_ATTN{_SECOND_ENGINE}" in release.attention_backends
    if name.endswith(_SECOND_ENGINE) and not two:
        return "of the second engine, which this release does not start by itself"
    if two and name + _SECOND_ENGINE in release.attention_backends:
        return f"of the first engine; {name}{_SECOND_ENGINE} is walked"
    if capability < backend.capability:
        return _too_old(backend.capability, capability)
    environment = snapshot.environment
    if backend.package and isinstance(environment, Environment) and environment.distribution(backend.package) is None:
        return f"{backend.package} is not installed"
    return ""


def _asking(release: Release, name: str) -> Configuration:
    """How a backend is asked for: by a flag (from 0.13), before that by a variable."""
    if "--attention-backend" in release.flags:
        return Configuration(name=name, flags=("--attention-backend", name))
    return Configuration(name=name, variables={"VLLM_ATTENTION_BACKEND": name})


def _plain(name: str, *flags: str) -> Iterator[tuple[str, Configuration]]:
    yield name, Configuration(name=name, flags=flags)


def _chunked() -> Iterator[tuple[str, Configuration]]:
    """Prompts cut into pieces of 64 tokens: attention over a cache that the step before wrote."""
    yield from _plain("prefill in pieces of 64", "--enable-chunked-prefill", "--max-num-batched-tokens", "64")


def _capability(snapshot: Snapshot) -> Capability | None:
    """The lowest of the GPUs; None where one is not known."""
    if not isinstance(snapshot.gpus, Gpus) or not snapshot.gpus.devices:
        return None
    found: list[Capability] = []
    for gpu in snapshot.gpus.devices:
        if not isinstance(gpu.compute_capability, str):
            return None
        major, _, minor = gpu.compute_capability.partition(".")
        found.append((int(major), int(minor or 0)))
    return min(found)


def _too_old(needed: Capability, capability: Capability) -> str:
    return f"needs compute capability {needed[0]}.{needed[1]}, and this is {capability[0]}.{capability[1]}"
