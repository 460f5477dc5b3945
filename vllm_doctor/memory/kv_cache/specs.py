"""One layer's cache on one rank: the bytes of a block, and how many blocks a request may hold."""

from math import lcm
from typing import NamedTuple

from msgspec.structs import replace

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.drafting import MTP_METHODS
from vllm_doctor.memory.elements import cache_head_bytes, element_bytes, is_fp8, latent_bytes
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Device, LaunchSettings, Release, StateTensor
from vllm_doctor.memory.implementation import built_as
from vllm_doctor.memory.kv_cache.records import block_multiple, packed_block, page_bytes, ring_tokens

DEFAULT_BLOCK = 16
# vLLM for CPU, 0.32 platforms/cpu.py check_and_update_config; its MLA kernel takes 16 only.
CPU_BLOCK = 128
# vLLM 0.32 platforms/interface.py _align_hybrid_block_size: MLA next to states aligns blocks to 128 tokens.
LATENT_ALIGNMENT = 128
# From 0.33 on FlashInfer's prefill of delta nets exports such checkpoints too, at multiples of 64 tokens, and blocks of
# the hybrid are multiples of that (v1/attention/backends/gdn_attn.py, platforms/interface.py).
DELTA_CHECKPOINTS_FROM: Release = (0, 33, 0)
_DELTA_ALIGNMENT = 64
_DELTA_KEY_SIZE = 128
# dots3 note's own backend (models/dots3_note/nvidia/attention.py, v1/attention/backends/mla/flashattn_mla_sparse.py).
_WIDE_ONLY = frozenset(("Dots3NoteTextModel",))
_WIDE = ("auto", "float16", "bfloat16")
_WIDE_ERROR = "FlashAttnMLASparseImpl currently supports only FP16/BF16 KV cache."
_WITHOUT_ROPE = frozenset(("Glm5NextForCausalLM",))
SLIDING = (CacheKind.SLIDING, CacheKind.SLIDING_LATENT)
# In 0.28, and not in 0.20 yet.
RETAINED_FROM: Release = (0, 28, 0)
# The states of these keep one more block, the checkpoint of a prefill (mamba_mixer2.py, kda.py; 0.32).
CHECKPOINTED = ("mamba2", "kda")


class Spec(NamedTuple):
    """A layer's cache on a rank: tokens and bytes of a block, `window` in tokens, `states` blocks a request needs.

    `alignment`: where pages of several layers lie in one block, its bytes are a multiple of that. `retained`: tokens
    that stay beyond the window.
    """

    kind: CacheKind
    block: int
    page: int
    window: int = 0
    states: int = 0
    alignment: int = 1
    retained: int = 0

    def blocks_of_request(self, max_model_len: int, in_flight: int, encoder_tokens: int, dcp: int) -> int:
        """The most blocks that one request can hold (v1/kv_cache_interface.py max_memory_usage_bytes, 0.32)."""
        match self.kind:
            case CacheKind.FULL | CacheKind.LATENT | CacheKind.HIDDEN:
                return cdiv(cdiv(max_model_len, dcp), self.block)
            case CacheKind.SLIDING | CacheKind.SLIDING_LATENT:
                return cdiv(min(self.window - 1 + self.retained + in_flight, max_model_len), self.block) + 1
            case CacheKind.CHUNKED:
                return cdiv(min(self.window + in_flight, max_model_len), self.block)
            case CacheKind.CROSS:
                return cdiv(encoder_tokens, self.block)
            case CacheKind.RING:
                return 1
            case _:
                return self.states


class Placed(NamedTuple):
    """One cache of one layer, and the pipeline stage that holds it."""

    spec: Spec
    stage: int


def cdiv(number: int, by: int) -> int:
    """Ceiling division."""
    return -(-number // by)


def attention_token_bytes(cache: Cache, settings: LaunchSettings, model_bytes: int) -> int:
    """Bytes of one token in one attention layer on one rank.

    With more ranks than key-value heads every rank still has one (0.32 config/model.py get_num_kv_heads). Raises
    DoctorError for a KV format whose layout is not known.
    """
    kv_dtype = settings.kv_cache_dtype
    if cache.kind is CacheKind.HIDDEN:
        return cache.kv_heads * cache.head_size * model_bytes
    if cache.kind is CacheKind.LATENT:
        size = latent_bytes(kv_dtype, model_bytes, cache.head_size)
        heads = 1
    else:
        size = cache_head_bytes(kv_dtype, model_bytes, cache.head_size, cache.value_size)
        divided = 1 if cache.kind is CacheKind.RING else settings.tensor_parallel_size
        heads = max(1, cache.kv_heads // divided)
    if cache.own_element_bytes is not None:
        size = (cache.head_size + cache.value_size) * cache.own_element_bytes
    if size is None:
        raise DoctorError(f"--kv-cache-dtype {kv_dtype}: its layout is not known", "plan with auto, bfloat16 or fp8")
    return heads * size * cache.states_per_token


def state_bytes(cache: Cache, settings: LaunchSettings, architecture: Architecture, model_bytes: int) -> int:
    """Bytes of one sequence's states in one layer on one rank (model_executor/layers/mamba/mamba_utils.py, 0.32)."""
    return sum(_state_tensor_bytes(s, settings, architecture, model_bytes) for s in cache.states)


def _state_tensor_bytes(
    state: StateTensor, settings: LaunchSettings, architecture: Architecture, model_bytes: int
) -> int:
    divided = cdiv(state.divided, settings.tensor_parallel_size)
    if state.element_bytes is not None:
        return divided * state.fixed * state.element_bytes
    conv = _named(settings.mamba_cache_dtype, model_bytes)
    if not state.temporal:
        return divided * state.fixed * conv
    dtype = settings.mamba_ssm_cache_dtype
    if dtype == "auto" and architecture.mamba_ssm_dtype is not None:
        dtype = architecture.mamba_ssm_dtype
    return divided * state.fixed * _named(dtype, conv)


def _named(dtype: str, default: int) -> int:
    return default if dtype == "auto" else element_bytes(dtype) or default


def is_cpu(device: Device | None) -> bool:
    """Whether the device stands for vLLM's CPU backend."""
    return device is not None and device.name.lower() == "cpu"


def kernel_block(architecture: Architecture, settings: LaunchSettings, device: Device | None) -> int:
    """The smallest block that the attention backend of this model takes on this GPU (0.32, platforms/cuda.py).

    Backends by priority: FlashAttention, FlashInfer and Triton take 16; MLA has FlashAttention-MLA (16, Hopper, no FP8
    KV), FlashMLA (64), on Blackwell FlashInfer-MLA (32), else Triton-MLA (16); the sparse ones take 64.
    """
    if architecture.kernel_block is not None:
        return architecture.kernel_block
    if (packed := packed_block(architecture, device)) is not None:
        return packed
    kinds = {c.kind for k in architecture.kinds for c in k.caches}
    if CacheKind.LATENT not in kinds:
        return CPU_BLOCK if is_cpu(device) else DEFAULT_BLOCK
    if is_cpu(device):
        return DEFAULT_BLOCK
    named = _named_backend(settings)
    if named is not None:
        return named
    family = (device.capability or 90) // 10 if device is not None else 9
    if architecture.sparse_attention:
        return 64
    if family == 10:
        return 32
    if family == 9 and is_fp8(settings.kv_cache_dtype):
        return 64
    return DEFAULT_BLOCK


def _named_backend(settings: LaunchSettings) -> int | None:
    sizes = {"FLASHMLA": 64, "CUTLASS_MLA": 128, "FLASHINFER_MLA": 32, "FLASH_ATTN_MLA": 16, "TRITON_MLA": 16}
    backend = settings.attention_backend or settings.environment.get("VLLM_ATTENTION_BACKEND")
    return sizes.get(backend.upper()) if backend is not None else None


def exports_checkpoints(
    architecture: Architecture, settings: LaunchSettings, release: Release, device: Device | None
) -> bool:
    """Whether the delta nets export states from inside a prefill (0.33 layers/mamba/gdn/qwen_gdn_linear_attn.py).

    That takes FlashInfer's kernel: Hopper, or Blackwell with keys of 128 (and CUDA 13, which the wheels of 0.33 have).
    """
    states = [c for k in architecture.kinds for c in k.caches if c.states]
    if release < DELTA_CHECKPOINTS_FROM or not states or is_cpu(device):
        return False
    if any(c.state_name != "gdn_attention" for c in states):
        return False
    if settings.gdn_prefill_backend not in ("auto", "flashinfer") or not prefix_caching(
        architecture, settings, release
    ):
        return False
    family = (device.capability or 90) // 10 if device is not None else 9
    return family == 9 or (family in (10, 12) and architecture.state_key_size == _DELTA_KEY_SIZE)


def block_tokens(
    architecture: Architecture,
    settings: LaunchSettings,
    device: Device | None,
    model_bytes: int,
    release: Release = (0, 32, 0),
) -> tuple[int, int | None]:
    """Tokens of an attention block, and the bytes that states are padded to (None: not padded).

    The block of a hybrid model grows until one attention page holds one state (0.32 platforms/interface.py
    _align_hybrid_block_size).
    """
    kernel = kernel_block(architecture, settings, device)
    block = settings.block_size if settings.block_size is not None else max(DEFAULT_BLOCK, kernel)
    caches = [c for k in architecture.kinds for c in k.caches]
    state = max((state_bytes(c, settings, architecture, model_bytes) for c in caches if c.states), default=0)
    attention = next((c for c in caches if c.kind is not CacheKind.STATE), None)
    if not architecture.is_hybrid or attention is None or state == 0:
        return block, None
    # Here a packed latent counts as so many bytes as it has numbers.
    plainly = replace(settings, kv_cache_dtype="fp8") if settings.kv_cache_dtype == "fp8_ds_mla" else settings
    token = attention_token_bytes(attention, plainly, model_bytes)
    step = max(kernel, block, LATENT_ALIGNMENT if attention.kind is CacheKind.LATENT else 0)
    if exports_checkpoints(architecture, settings, release, device):
        step = lcm(step, _DELTA_ALIGNMENT)
    wanted = step * cdiv(state, step * token)
    wanted = lcm(kernel) * cdiv(wanted, kernel)
    block = max(block, wanted)
    return block, block * token


def rank_specs(
    architecture: Architecture,
    settings: LaunchSettings,
    release: Release,
    device: Device | None,
    max_model_len: int,
    draft: Architecture | None = None,
) -> tuple[tuple[Spec, ...], ...]:
    """The caches of every layer kind on one rank, in the order of `architecture.kinds`, then those of a draft."""
    model_bytes = model_element_bytes(architecture, settings)
    block, padded = block_tokens(architecture, settings, device, model_bytes, release)
    align = prefix_caching(architecture, settings, release)
    exported = exports_checkpoints(architecture, settings, release, device)
    state_block = settings.mamba_block_size or (block if align else max_model_len)
    retained = _retained(settings, release, draft)

    def one(cache: Cache) -> Spec:
        if cache.kind is CacheKind.STATE:
            size = state_bytes(cache, settings, architecture, model_bytes)
            page = max(padded, size) if padded is not None else size
            return Spec(cache.kind, state_block, page, states=_state_blocks(cache, settings, release, align) + exported)
        if cache.record:
            own = ring_tokens(settings) if cache.kind is CacheKind.RING else cache.block or block
            page = page_bytes(cache, own, architecture, settings, device)
            multiple = block_multiple(cache, architecture, settings, release, device)
            kept = retained if cache.kind in SLIDING else 0
            return Spec(cache.kind, own, page, window=cache.window or 0, alignment=multiple, retained=kept)
        token = attention_token_bytes(cache, settings, model_bytes)
        own = _own_block(cache, settings) or block
        page = own // cache.tokens_per_state * token
        return Spec(cache.kind, own, page, window=cache.window or 0, retained=retained if cache.kind in SLIDING else 0)

    kinds = (*architecture.kinds, *(draft.kinds if draft is not None else ()))
    return tuple(tuple(one(c) for c in kind.caches) for kind in kinds)


def _retained(settings: LaunchSettings, release: Release, draft: Architecture | None) -> int:
    """What several MTP layers read once more of what lies behind a window.

    0.32 config/vllm.py num_prefill_lookahead_tokens, v1/core/kv_cache_utils.py get_kv_cache_configs.
    """
    asked = settings.draft
    if asked is None or draft is None or asked.method not in MTP_METHODS or release < RETAINED_FROM:
        return 0
    return max(0, asked.tokens - 1) if min(len(draft.layers), asked.tokens) > 1 else 0


def _own_block(cache: Cache, settings: LaunchSettings) -> int | None:
    """Tokens of a block that the layer sets itself; a ring has room for the drafts (glm5next/common/attention.py)."""
    if cache.kind is not CacheKind.RING or cache.block is None:
        return cache.block
    speculative = settings.draft.tokens if settings.draft is not None else 0
    turns = cdiv(cache.block + speculative, cache.block)
    return int(cache.block * 2 ** (turns - 1).bit_length())


def _state_blocks(cache: Cache, settings: LaunchSettings, release: Release, align: bool) -> int:
    """Blocks of states that one request holds (0.32 v1/kv_cache_interface.py MambaSpec.max_memory_usage_bytes)."""
    speculative = settings.draft.tokens if settings.draft is not None else 0
    if not align:
        return 1 + speculative
    return 2 + speculative + (1 if cache.state_name in CHECKPOINTED and release >= (0, 32, 0) else 0)


def prefix_caching(architecture: Architecture, settings: LaunchSettings, release: Release) -> bool:
    """Whether prefix caching is on: by default for decoders and, from 0.32 on (and somewhat before), for hybrids.

    vLLM 0.32 config/model.py is_prefix_caching_supported: not for attention-free and encoder-decoder models.
    """
    if architecture.is_attention_free or architecture.is_encoder_decoder:
        return False
    if settings.prefix_caching is not None:
        return settings.prefix_caching
    return release >= (0, 26, 0) if architecture.is_hybrid else True


def model_element_bytes(architecture: Architecture, settings: LaunchSettings) -> int:
    """Bytes of the model's dtype: `--dtype`, else the config's, where float32 is served in half (0.32 model.py)."""
    dtype = architecture.dtype if settings.dtype == "auto" else settings.dtype
    if settings.dtype == "auto" and dtype == "float32":
        return 2
    return element_bytes(dtype) or 2


def takes_fp8_cache(architecture: Architecture) -> bool:
    """Whether the model's own attention backend takes anything but 16 bits."""
    return built_as(architecture) not in _WIDE_ONLY


def served_dtype(architecture: Architecture, settings: LaunchSettings, release: Release) -> str:
    """The format of the KV cache: `auto` takes what the checkpoint asks for (0.32 utils/torch_utils.py).

    DeepSeek's sparse attention packs FP8 in its own layout, which was its default at first (0.11 to 0.2x; 0.32 takes
    bfloat16: model_executor/models/config.py DeepseekV32ForCausalLM). Latents without RoPE have no place in that layout
    (v1/attention/backends/mla/flashmla_sparse.py supports_combination). Raises DoctorError where vLLM refuses it.
    """
    dtype = settings.kv_cache_dtype
    quantization = architecture.quantization
    if dtype == "auto" and quantization is not None and quantization.kv_cache_dtype is not None:
        dtype = quantization.kv_cache_dtype
    if not takes_fp8_cache(architecture) and dtype not in _WIDE:
        raise DoctorError(f"--kv-cache-dtype {dtype}: vLLM refuses it: {_WIDE_ERROR}", "leave the flag out")
    if not architecture.sparse_attention or built_as(architecture) in _WITHOUT_ROPE:
        return dtype
    return "fp8_ds_mla" if is_fp8(dtype) or (dtype == "auto" and release < (0, 22, 0)) else dtype
