"""Layers with a cache, put into the groups that share block tables, as vLLM's `get_kv_cache_groups` does."""

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.facts import CacheKind, Release
from vllm_doctor.memory.kv_cache.packing import block_bytes, is_packed, packed_layers
from vllm_doctor.memory.kv_cache.specs import Placed, Spec, cdiv

FULL_KINDS = (CacheKind.FULL, CacheKind.LATENT, CacheKind.HIDDEN)
LOCAL_KINDS = (CacheKind.SLIDING, CacheKind.CHUNKED)


class Group(NamedTuple):
    """Layers that take blocks together: `spec` for the blocks of a request, bytes of a block on every stage."""

    spec: Spec
    specs: tuple[Spec, ...]
    stage_bytes: tuple[int, ...]


def make_groups(layers: Sequence[Placed], stages: int, release: Release, hybrid_manager: bool) -> tuple[Group, ...]:
    """The groups of a model (v1/core/kv_cache_utils.py get_kv_cache_groups, 0.32); () where nothing is cached.

    Raises DoctorError for a mix of layers whose pages cannot be made equal, with vLLM's own words.
    """
    if not layers:
        return ()
    if is_packed(layers):
        return _packed(layers, stages, release, hybrid_manager)
    if not hybrid_manager:
        layers = promoted(layers)
    if _uniform_type([p.spec for p in layers]):
        return (_group(layers, stages),)
    hidden = [p for p in layers if p.spec.kind is CacheKind.HIDDEN]
    groups = _split_groups(unified([p for p in layers if p.spec.kind is not CacheKind.HIDDEN]), stages, release)
    return _with_hidden(groups, hidden, stages) if hidden else groups


def _packed(layers: Sequence[Placed], stages: int, release: Release, hybrid_manager: bool) -> tuple[Group, ...]:
    """Groups that share one size of block, whatever their own layers need of it."""
    if not hybrid_manager:
        what = "--disable-hybrid-kv-cache-manager: how the caches of this model are laid out then is not known"
        raise DoctorError(what, "leave the flag out")
    groups = packed_layers(layers, release)
    sizes = tuple(block_bytes([[p for p in g if p.stage == s] for g in groups], release) for s in range(stages))
    return tuple(Group(g[0].spec, tuple({p.spec for p in g}), sizes) for g in groups)


def promoted(layers: Sequence[Placed]) -> Sequence[Placed]:
    """Local attention allocated as full, where both are in the model (`unify_hybrid_kv_cache_specs`)."""
    kinds = {p.spec.kind for p in layers}
    if not kinds & set(FULL_KINDS) or not kinds & set(LOCAL_KINDS):
        return layers
    return [
        p._replace(spec=p.spec._replace(kind=CacheKind.FULL, window=0, retained=0)) if p.spec.kind in LOCAL_KINDS else p
        for p in layers
    ]


def _uniform_type(specs: Sequence[Spec]) -> bool:
    """Whether all need the same number of token slots (`UniformTypeKVCacheSpecs.is_uniform_type`)."""
    first = specs[0]
    if any(s.block != first.block for s in specs):
        return False
    if first.kind in FULL_KINDS:
        return all(s.kind in FULL_KINDS for s in specs)
    if first.kind is CacheKind.STATE:
        return all(s.kind is first.kind and s.page == first.page and s.states == first.states for s in specs)
    return all(s.kind is first.kind and s.window == first.window for s in specs)


def unified(layers: Sequence[Placed]) -> list[Placed]:
    """The layers with pages of one size (`unify_kv_cache_spec_page_size`): larger blocks, else padding."""
    largest = max(p.spec.page for p in layers)
    return [p._replace(spec=_grown(p.spec, largest)) for p in layers]


def _grown(spec: Spec, page: int) -> Spec:
    if spec.page == page:
        return spec
    if spec.kind is not CacheKind.STATE and page % spec.page == 0:
        return spec._replace(block=spec.block * (page // spec.page), page=page)
    if spec.kind is CacheKind.LATENT:
        what = "Layer: page size is not divisible by the maximum page size and cannot be padded"
        raise DoctorError(what, "vLLM refuses this mix of layers")
    return spec._replace(page=page)


def _split_groups(layers: Sequence[Placed], stages: int, release: Release) -> tuple[Group, ...]:
    """Buckets by spec, cut into groups of one size (`_get_kv_cache_groups_uniform_page_size`)."""
    buckets: dict[Spec, list[Placed]] = {}
    for placed in layers:
        buckets.setdefault(placed.spec, []).append(placed)
    size = _group_size([len(b) for b in buckets.values()], release)
    groups = []
    for bucket in buckets.values():
        count = cdiv(len(bucket), size)
        groups += [_group(bucket[i::count], stages) for i in range(count)]
    return tuple(groups)


def _group_size(counts: Sequence[int], release: Release) -> int:
    """The smallest bucket, or the largest where they are close: 1.5 times (0.18 on), 1.25 (0.12 to 0.17)."""
    smallest, largest = min(counts), max(counts)
    if release >= (0, 18, 0):
        return largest if largest < smallest * 1.5 else smallest
    if release >= (0, 12, 0):
        return largest if largest < smallest * 1.25 else smallest
    return smallest


def _with_hidden(groups: tuple[Group, ...], hidden: Sequence[Placed], stages: int) -> tuple[Group, ...]:
    """Groups for kept hidden states, whose pages are made as large as the others' (0.32 `_ensure_min_page_size`)."""
    widest = max(p.spec.page // p.spec.block for p in hidden)
    scale = cdiv(widest, groups[0].spec.page)
    scaled = tuple(_scaled(g, scale) for g in groups) if scale > 1 else groups
    page, together = scaled[0].spec.page, gcd(*(g.spec.block for g in scaled))
    more = []
    for placed in hidden:
        most = max(1, page // (placed.spec.page // placed.spec.block))
        block = next(size for size in range(min(together, most), 0, -1) if together % size == 0)
        more.append(_group([placed._replace(spec=placed.spec._replace(block=block, page=page))], stages))
    return (*scaled, *more)


def _scaled(group: Group, scale: int) -> Group:
    grown = {s: s._replace(block=s.block * scale, page=s.page * scale) for s in (group.spec, *group.specs)}
    specs = tuple(grown[s] for s in group.specs)
    return Group(grown[group.spec], specs, tuple(size * scale for size in group.stage_bytes))


def _group(layers: Sequence[Placed], stages: int) -> Group:
    sums = [0] * stages
    for placed in layers:
        sums[placed.stage] += placed.spec.page
    return Group(layers[0].spec, tuple({p.spec for p in layers}), tuple(sums))
