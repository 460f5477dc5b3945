"""Groups of layers whose pages of several sizes lie side by side in a block, as DeepSeek V4's do."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vllm_doctor.memory.facts import CacheKind, Release
from vllm_doctor.memory.kv_cache.specs import Placed, cdiv

# Where the groups' blocks lie over each other; before, a page had a place of its own for every size of pages (0.27
# v1/core/kv_cache_utils.py _get_packed_kv_cache_layout).
_OVERLAID_FROM: Release = (0, 27, 0)
# To 0.22 there were as many places of every size as of the one that has most (_get_kv_cache_config_deepseek_v4).
_BY_SIZE_FROM: Release = (0, 23, 0)
# Before, the compressed keys decided how many layers a group has at least, now what has as many layers of every size
# (_get_packed_kv_cache_groups).
_BALANCED_FROM: Release = (0, 29, 0)
# Kinds that a request holds a bounded number of blocks of.
_BOUNDED = (CacheKind.SLIDING_LATENT, CacheKind.RING)


class Bucket(NamedTuple):
    """Layers that need the same token slots, by the size of their pages."""

    sizes: dict[int, list[Placed]]

    @property
    def layers(self) -> list[Placed]:
        """All of them."""
        return [placed for layers in self.sizes.values() for placed in layers]

    @property
    def repeats(self) -> int:
        """The layers of the size that most have (`get_max_layers_per_page_size`)."""
        return max(len(layers) for layers in self.sizes.values())

    @property
    def is_balanced(self) -> bool:
        """Whether every size has as many layers."""
        return len({len(layers) for layers in self.sizes.values()}) == 1


def is_packed(layers: Sequence[Placed]) -> bool:
    """Whether the layers are of those that vLLM packs: their backends take no other layout."""
    return any(p.spec.kind in _BOUNDED for p in layers) and len({p.spec.page for p in layers}) > 1


def packed_layers(layers: Sequence[Placed], release: Release) -> list[list[Placed]]:
    """The groups' layers (0.32 v1/core/kv_cache_utils.py `_get_packed_kv_cache_groups`; 0.20 to 0.28 its forerunner).

    A bucket of pages of one size is cut into groups of about as many layers as the buckets of several sizes repeat.
    """
    buckets = _buckets(layers)
    counted = [b for b in buckets if b.is_balanced or release < _BALANCED_FROM]
    several = [b.repeats for b in counted if len(b.sizes) > 1 and (release >= _BALANCED_FROM or _is_latent(b))]
    repeats = _least_padding([b.repeats for b in counted], max(several)) if several else None
    anchor = max(_widest(b, len(b.layers) if _is_state(b, repeats) else _count(b, repeats, release)) for b in buckets)
    groups: list[list[Placed]] = []
    for bucket in buckets:
        count = _count(bucket, repeats, release)
        if _is_state(bucket, repeats) and release >= _BALANCED_FROM:
            fitting = max(anchor // bucket.layers[0].spec.page, 1)
            count = max(count, cdiv(len(bucket.layers), fitting))
        groups += _cut(bucket, count)
    return groups


def block_bytes(groups: Sequence[Sequence[Placed]], release: Release) -> int:
    """Bytes of a block of one stage's layers, which every group takes."""
    if release >= _OVERLAID_FROM:
        size = max((sum(p.spec.page for p in group) for group in groups), default=0)
        multiple = math.lcm(*(p.spec.alignment for group in groups for p in group))
        return cdiv(size, multiple) * multiple
    latent = [p.spec.page for group in groups for p in group if p.spec.kind is CacheKind.LATENT]
    sizes = sorted(set(latent))
    places: dict[int, int] = dict.fromkeys(sizes, 0)
    for group in groups:
        counts: dict[int, int] = {}
        for placed in group:
            # A page takes the place of the next larger size.
            size = next((s for s in sizes if s >= placed.spec.page), placed.spec.page)
            counts[size] = counts.get(size, 0) + 1
        for size, count in counts.items():
            places[size] = max(places.get(size, 0), count)
    if release < _BY_SIZE_FROM:
        return sum(places) * max(places.values(), default=0)
    return sum(size * count for size, count in places.items())


def _buckets(layers: Sequence[Placed]) -> list[Bucket]:
    found: dict[tuple[CacheKind, int, int], Bucket] = {}
    for placed in layers:
        spec = placed.spec
        key = (spec.kind, spec.block, spec.window if spec.kind is CacheKind.SLIDING_LATENT else 0)
        found.setdefault(key, Bucket({})).sizes.setdefault(spec.page, []).append(placed)
    return list(found.values())


def _least_padding(numbers: Sequence[int], least: int) -> int:
    """The size of groups that leaves the fewest places empty, the larger of two (`_approximate_gcd`)."""
    sizes = range(least, max(numbers) + 1)
    return min(sizes, key=lambda size: (sum(-n % size for n in numbers), -size), default=least)


def _count(bucket: Bucket, repeats: int | None, release: Release) -> int:
    if repeats is None or not (bucket.is_balanced or release < _BALANCED_FROM):
        return 1
    return cdiv(bucket.repeats, repeats)


def _is_latent(bucket: Bucket) -> bool:
    return bucket.layers[0].spec.kind is CacheKind.LATENT


def _is_state(bucket: Bucket, repeats: int | None) -> bool:
    kind = bucket.layers[0].spec.kind
    return kind is CacheKind.RING or (repeats is None and kind is CacheKind.SLIDING_LATENT)


def _widest(bucket: Bucket, groups: int) -> int:
    return sum(cdiv(len(layers), groups) * page for page, layers in bucket.sizes.items())


def _cut(bucket: Bucket, count: int) -> list[list[Placed]]:
    if count == 1:
        return [bucket.layers]
    patterns = list(zip(*bucket.sizes.values(), strict=False))
    return [[placed for repeat in patterns[i::count] for placed in repeat] for i in range(count)]
