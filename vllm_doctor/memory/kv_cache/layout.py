"""The KV cache of a launch: bytes of a block, and from the bytes left the blocks, tokens, concurrency and lengths."""

from collections.abc import Iterator
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from vllm_doctor.memory.facts import Architecture, CacheKind, Device, LaunchSettings, Release
from vllm_doctor.memory.kv_cache.groups import Group, make_groups
from vllm_doctor.memory.kv_cache.specs import Placed, Spec, rank_specs, served_dtype
from vllm_doctor.memory.stages import stage_of_layers

GIB = 2**30
# vLLM holds one block back, the null block, and counts it from 0.29 on (v1/core/kv_cache_utils.py, 0.32).
NULL_BLOCK_COUNTED = (0, 29, 0)
# v1/core/kv_cache_utils.py get_kv_cache_capacity: tokens = int(max_concurrency * max_model_len).
TOKENS_BY_CONCURRENCY = (0, 21, 0)
GROUP_AWARE = (0, 9, 0)
NO_MEMORY = (
    "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine"
)


class Capacity(Struct, frozen=True, kw_only=True):
    """What the cache holds: `tokens` and `max_concurrency` as vLLM logs them, `needed_bytes` of one full request."""

    blocks: int
    tokens: int
    max_concurrency: float
    needed_bytes: int


class KvLayout(Struct, frozen=True, kw_only=True):
    """How one launch lays its KV cache out; bytes are per GPU, of the stage that needs most.

    `stage_block_bytes`: bytes of one block on every pipeline stage. `in_flight_tokens`: scheduled and not yet settled.
    """

    bytes_per_token_per_gpu: float
    block_size: int
    stage_block_bytes: tuple[int, ...]
    groups: tuple[Group, ...]
    release: Release
    in_flight_tokens: int
    encoder_tokens: int
    decode_context_parallel_size: int
    blocks_override: int | None
    is_hybrid: bool
    layer_pages: tuple[tuple[tuple[Spec, int], ...], ...]

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block on the fullest stage; 0 where nothing is cached."""
        return max(self.stage_block_bytes, default=0)

    def blocks(self, available_bytes: int) -> int:
        """Blocks that all ranks can have (1 where nothing is cached: the null block)."""
        if self.blocks_override is not None:
            return self.blocks_override
        return min((max(0, available_bytes) // size for size in self.stage_block_bytes if size), default=1)

    def blocks_of_request(self, max_model_len: int) -> int:
        """Blocks of one request of that length: every group takes its own from the shared pool."""
        return sum(self._group_blocks(g, max_model_len) for g in self.groups)

    def _group_blocks(self, group: Group, max_model_len: int) -> int:
        return max(
            s.blocks_of_request(
                max_model_len, self.in_flight_tokens, self.encoder_tokens, self.decode_context_parallel_size
            )
            for s in group.specs
        )

    def needed_bytes(self, max_model_len: int) -> int:
        """Bytes that one request of that length needs on the fullest stage."""
        return max(self._stage_needs(max_model_len), default=0)

    def _stage_needs(self, max_model_len: int) -> Iterator[int]:
        """Per stage; to 0.13 the sum of the layers' own needs, without the padding of groups."""
        if self.release < (0, 14, 0):
            for pages in self.layer_pages:
                yield sum(n * s.page * self._spec_blocks(s, max_model_len) for s, n in pages)
            return
        blocks = self.blocks_of_request(max_model_len)
        yield from (size * blocks for size in self.stage_block_bytes)

    def _spec_blocks(self, spec: Spec, max_model_len: int) -> int:
        return spec.blocks_of_request(
            max_model_len, self.in_flight_tokens, self.encoder_tokens, self.decode_context_parallel_size
        )

    def capacity(self, available_bytes: int, max_model_len: int) -> Capacity:
        """Blocks, tokens and concurrency at that length, as this release of vLLM logs them."""
        blocks = self.blocks(available_bytes)
        of_request = self.blocks_of_request(max_model_len)
        concurrency = blocks / of_request if of_request else 0.0
        return Capacity(
            blocks=blocks,
            tokens=self._tokens(blocks, concurrency, max_model_len),
            max_concurrency=concurrency,
            needed_bytes=self.needed_bytes(max_model_len),
        )

    def _tokens(self, blocks: int, concurrency: float, max_model_len: int) -> int:
        if self.release >= TOKENS_BY_CONCURRENCY:
            return int(concurrency * max_model_len)
        smallest = min((g.spec.block for g in self.groups), default=0)
        if self.release >= GROUP_AWARE:
            return blocks // max(1, len(self.groups)) * smallest * self.decode_context_parallel_size
        return blocks * smallest

    def usable_bytes(self, available_bytes: int) -> tuple[int, ...]:
        """What the checks of the length count, per stage: without the null block from 0.29 on."""
        if self.blocks_override is not None:
            totals = tuple(self.blocks_override * size for size in self.stage_block_bytes)
        else:
            totals = tuple(available_bytes for _ in self.stage_block_bytes)
        if self.release < NULL_BLOCK_COUNTED:
            return totals
        return tuple(t - size for t, size in zip(totals, self.stage_block_bytes, strict=True))

    def fits(self, available_bytes: int, max_model_len: int) -> bool:
        """Whether vLLM would start with that much for the cache and that length."""
        return self.error(available_bytes, max_model_len) is None

    def largest_max_model_len(self, available_bytes: int, up_to: int) -> int:
        """The longest max_model_len that starts, at most `up_to`; 0 where not even one token does."""
        usable = self.usable_bytes(available_bytes)
        return min((self._largest(stage, bytes_, up_to) for stage, bytes_ in enumerate(usable)), default=up_to)

    def _largest(self, stage: int, usable: int, up_to: int) -> int:
        """vLLM's own binary search (`_estimate_max_model_len_from_groups`)."""
        if usable <= 0 or not self._stage_fits(stage, usable, 1):
            return 0
        low, high, result = 1, up_to, 1
        while low <= high:
            middle = (low + high) // 2
            if self._stage_fits(stage, usable, middle):
                result, low = middle, middle + 1
            else:
                high = middle - 1
        return result

    def _stage_fits(self, stage: int, usable: int, max_model_len: int) -> bool:
        return tuple(self._stage_needs(max_model_len))[stage] <= usable

    def error(self, available_bytes: int, max_model_len: int) -> str | None:
        """The message with which vLLM refuses the length; None where it starts.

        v1/core/kv_cache_utils.py _check_enough_kv_cache_memory (0.8 to 0.32).
        """
        needs = tuple(self._stage_needs(max_model_len))
        for stage, usable in enumerate(self.usable_bytes(available_bytes)):
            if usable <= 0:
                return NO_MEMORY + "." + self._advice(memory=True)
            if needs[stage] > usable:
                return self._too_long(needs[stage], usable, max_model_len, self._largest(stage, usable, max_model_len))
        return None

    def _too_long(self, needed: int, usable: int, max_model_len: int, largest: int) -> str:
        owner = "model's" if self.release >= (0, 21, 0) else "models's"
        estimate = f"Based on the available memory, the estimated maximum model length is {largest}. "
        return (
            f"To serve at least one request with the {owner} max seq len ({max_model_len}), "
            f"({round(needed / GIB, 2)} GiB KV cache is needed, which is larger than the available KV cache memory "
            f"({round(usable / GIB, 2)} GiB). {estimate if largest > 0 else ''}Try increasing `gpu_memory_utilization`"
            + self._advice(memory=False)
        )

    def _advice(self, *, memory: bool) -> str:
        """The end of the message, in the words of 0.32; older releases stop after the first sentence."""
        page = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
        if self.release < (0, 29, 0):
            return "" if memory else " or decreasing `max_model_len` when initializing the engine."
        if memory:
            return f" (this flag also controls CPU memory reservation on the CPU backend, despite its name). {page}"
        which = " (which also controls CPU memory on the CPU backend) or decreasing `max_model_len`"
        return f"{which} when initializing the engine. {page}"

    def largest_max_num_seqs(self, available_bytes: int) -> int | None:
        """Sequences whose states the cache can hold at once; None where no layer keeps a state per sequence."""
        states = [g for g in self.groups if g.spec.kind is CacheKind.STATE]
        if not states:
            return None
        return self.blocks(available_bytes) // sum(g.spec.states for g in states)


@lru_cache(maxsize=256)
def kv_layout(
    architecture: Architecture,
    settings: LaunchSettings,
    release: Release,
    device: Device | None,
    max_num_batched_tokens: int,
    max_model_len: int,
    draft: Architecture | None = None,
) -> KvLayout:
    """The layout of the KV cache; `max_model_len` is the launch's, or what is derived for it.

    The layers of a `draft` have caches as the model's own, on the last stage (0.32 v1/worker/gpu_model_runner.py).

    Raises DoctorError for a KV format that is not known and for layers that vLLM cannot lay out.
    """
    settings = replace(settings, kv_cache_dtype=served_dtype(architecture, settings, release))
    specs = rank_specs(architecture, settings, release, device, max_model_len, draft)
    stages = settings.pipeline_parallel_size
    placed = [
        Placed(spec, stage)
        for layers in filter(None, (architecture.layers, architecture.side_layers))
        for kind, stage in zip(layers, stage_of_layers(len(layers), settings), strict=True)
        for spec in specs[kind]
    ]
    if draft is not None:
        placed += [Placed(s, stages - 1) for kind in draft.layers for s in specs[len(architecture.kinds) + kind]]
    groups = make_groups(placed, stages, release, _hybrid_manager(architecture, settings, release))
    per_stage = [[p.spec for p in placed if p.stage == s] for s in range(stages)]
    return KvLayout(
        bytes_per_token_per_gpu=max((_token_bytes(s) for s in per_stage), default=0.0),
        block_size=min((p.spec.block for p in placed if _grows(p.spec)), default=16),
        stage_block_bytes=tuple(max((g.stage_bytes[s] for g in groups), default=0) for s in range(stages)),
        groups=groups,
        release=release,
        in_flight_tokens=in_flight_tokens(settings, release, max_num_batched_tokens),
        encoder_tokens=max_num_batched_tokens,
        decode_context_parallel_size=settings.decode_context_parallel_size,
        blocks_override=settings.num_gpu_blocks_override,
        is_hybrid=architecture.is_hybrid,
        layer_pages=tuple(_counted(s) for s in per_stage),
    )


# Caches that do not grow with a request.
_WITHOUT_LENGTH = (CacheKind.STATE, CacheKind.SLIDING_LATENT, CacheKind.RING)


def _grows(spec: Spec) -> bool:
    """Whether more tokens take more blocks; of a window that one block holds (Inkling's convolutions) they do not."""
    return spec.kind not in _WITHOUT_LENGTH and not 0 < spec.window <= spec.block


def _token_bytes(specs: list[Spec]) -> float:
    return sum(s.page / s.block for s in specs if _grows(s))


def _counted(specs: list[Spec]) -> tuple[tuple[Spec, int], ...]:
    counts: dict[Spec, int] = {}
    for spec in specs:
        counts[spec] = counts.get(spec, 0) + 1
    return tuple(counts.items())


def in_flight_tokens(settings: LaunchSettings, release: Release, max_num_batched_tokens: int) -> int:
    """Tokens scheduled and not yet settled (0.32 config/vllm.py max_in_flight_tokens; one batch before 0.26)."""
    return max_num_batched_tokens * _concurrent_batches(settings, release)


def _concurrent_batches(settings: LaunchSettings, release: Release) -> int:
    """Batches at once: 2 with asynchronous scheduling (the default from 0.14), one more than stages from 0.29."""
    stages = settings.pipeline_parallel_size
    if release < (0, 26, 0):
        return 1
    if settings.async_scheduling is False:
        return stages
    return stages + 1 if release >= (0, 29, 0) or stages <= 1 else stages


def _hybrid_manager(architecture: Architecture, settings: LaunchSettings, release: Release) -> bool:
    """Whether layers of several kinds get groups of their own (0.32 config/vllm.py; none before 0.9.1)."""
    if settings.disable_hybrid_kv_cache_manager or release < (0, 9, 1):
        return False
    if not any(c.kind is CacheKind.CHUNKED for k in architecture.kinds for c in k.caches):
        return True
    allowed = settings.environment.get("VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE")
    return allowed == "1" if allowed is not None else release >= CHUNKED_ALLOWED


# VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE is on in vllm/envs.py of 0.32, and was off when it came (0.10).
CHUNKED_ALLOWED = (0, 32, 0)
