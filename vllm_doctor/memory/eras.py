"""A model as older releases of vLLM saw it."""

from functools import lru_cache

from msgspec.structs import replace

from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Release

# Latent attention is cached as one latent from 0.7.1 on (vLLM pull request 12528); before, DeepSeek's models kept all
# heads, keys and values both padded to 256 (model_executor/models/deepseek_v2.py, 0.6).
LATENT_FROM: Release = (0, 7, 1)
_PADDED_HEAD = 256


@lru_cache(maxsize=256)
def as_of(architecture: Architecture, release: Release) -> Architecture:
    """The architecture with the caches that this release gives its layers."""
    if release >= LATENT_FROM or not any(c.kind is CacheKind.LATENT for k in architecture.kinds for c in k.caches):
        return architecture
    return replace(architecture, kinds=tuple(_unfolded(kind, architecture) for kind in architecture.kinds))


def _unfolded(kind: Layer, architecture: Architecture) -> Layer:
    heads = Cache(
        kind=CacheKind.FULL,
        kv_heads=architecture.attention_heads,
        head_size=_PADDED_HEAD,
        value_size=_PADDED_HEAD,
    )
    return replace(kind, caches=tuple(heads if c.kind is CacheKind.LATENT else c for c in kind.caches))
