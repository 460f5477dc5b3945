"""Caches that are packed into blocks with others, DeepSeek V4's: bytes of a stored number and of a page of them."""

import math

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.elements import is_fp8
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Device, LaunchSettings, Release

# vLLM 0.32 models/deepseek_v4/attention.py: 448 numbers of FP8, 64 of bfloat16 and 8 bytes of scales; pages are
# multiples of the stride of FlashMLA's kernel.
_PACKED, _PACKED_PAGE = 584, 576
# models/deepseek_v41/attention.py, on Blackwell: 512 of FP8 with 16 scales; 512 of FP4 with 32 scales.
_BLACKWELL, _BLACKWELL_FP4, _BLACKWELL_PAGE = 528, 288, 512
# FlashInfer's kernels for Blackwell take plain rows (deepseek_v4/nvidia/flashinfer_sparse.py).
_PLAIN_PAGE = 512
_PLAIN_BACKENDS = ("FLASHINFER_MLA_SPARSE_DSV4", "FLASHINFER_MLA_SPARSE_DSV41")
# deepseek_v41/nvidia/flash_mla_mega_attn.py WV_GROUP_SIZE: heads of a group of the output.
_MEGA_HEADS = 8
_BLOCK, _HOPPER_BLOCK, _NEWER_BLOCK = 256, 64, 128
_WHOLE_RECORDS_FROM: Release = (0, 33, 0)
# A key of 128 numbers of FP4 with a scale for 32 of them (DeepseekV4Indexer).
_FP4_KEY_BYTES = 68


def page_bytes(
    cache: Cache, block: int, architecture: Architecture, settings: LaunchSettings, device: Device | None
) -> int:
    """Bytes of a block of that many tokens in one layer.

    Raises DoctorError for a --kv-cache-dtype that vLLM refuses for these layers.
    """
    family = _family(device)
    plain = _is_plain(settings, family)
    stored = _own_bytes(cache, settings)
    if stored is None:
        stored = _plain_bytes(cache, settings) if plain else _packed_bytes(cache, architecture, settings, family)
    newer = cache.record.startswith("v4.1") and family == 10
    multiple = _PLAIN_PAGE if plain else _BLACKWELL_PAGE if newer else _PACKED_PAGE
    size = block // cache.tokens_per_state * stored
    return size if cache.record == "ring" else -(-size // multiple) * multiple


def packed_block(architecture: Architecture, device: Device | None) -> int | None:
    """Tokens of a block of compressed keys, of which each backend takes one size; None where there are none.

    vLLM 0.32 models/deepseek_v4/sparse_mla.py and deepseek_v41/sparse_mla.py get_supported_kernel_block_sizes.
    """
    records = {c.record for kind in architecture.kinds for c in kind.caches if c.record}
    if not records:
        return None
    if "v4" in records:
        return _BLOCK
    return _HOPPER_BLOCK if _family(device) == 9 else _NEWER_BLOCK


def _family(device: Device | None) -> int:
    return (device.capability or 90) // 10 if device is not None else 9


def ring_tokens(settings: LaunchSettings) -> int:
    """Tokens of a ring: those of a step and the one before, a power of two (deepseek_v41/compressor.py)."""
    rows = (settings.draft.tokens if settings.draft is not None else 0) + 2
    return max(8, 1 << (rows - 1).bit_length())


def block_multiple(
    cache: Cache, architecture: Architecture, settings: LaunchSettings, release: Release, device: Device | None
) -> int:
    """What a block's bytes are a multiple of: whole numbers of both sizes, from 0.33 on (deepseek_v41/attention.py)."""
    if cache.record != "v4.1-window" or release < _WHOLE_RECORDS_FROM or _family(device) != 10:
        return 1
    caches = (c for kind in architecture.kinds for c in kind.caches)
    keys = next((c for c in caches if c.record == "v4.1" and c.own_element_bytes is None), cache)
    if _is_plain(settings, 10):
        return 1
    return math.lcm(_BLACKWELL, _packed_bytes(keys, architecture, settings, 10))


def _own_bytes(cache: Cache, settings: LaunchSettings) -> int | None:
    """What --kv-cache-dtype does not decide; an indexer's keys have a flag of their own (0.32 config/attention.py)."""
    if cache.own_element_bytes is None:
        return None
    if cache.kind is CacheKind.LATENT and settings.indexer_fp4:
        return _FP4_KEY_BYTES
    return cache.own_element_bytes * cache.head_size


def _is_plain(settings: LaunchSettings, family: int) -> bool:
    return family != 12 and (settings.attention_backend or "").upper() in _PLAIN_BACKENDS


def _plain_bytes(cache: Cache, settings: LaunchSettings) -> int:
    return cache.head_size * (1 if is_fp8(settings.kv_cache_dtype) else 2)


def _packed_bytes(cache: Cache, architecture: Architecture, settings: LaunchSettings, family: int) -> int:
    dtype, newer = settings.kv_cache_dtype, cache.record.startswith("v4.1")
    _check(dtype, newer=newer, family=family)
    if not newer or family != 10:
        return _PACKED
    if cache.record == "v4.1-window":
        return _BLACKWELL
    fp4 = dtype == "nvfp4_ds_mla" or (dtype in ("auto", "fp8") and _has_mega_attention(architecture, settings))
    return _BLACKWELL_FP4 if fp4 else _BLACKWELL


def _check(dtype: str, *, newer: bool, family: int) -> None:
    """The formats that vLLM takes for packed records (_resolve_dsv4_kv_cache_dtype of both)."""
    hint = "leave --kv-cache-dtype out"
    if dtype == "nvfp4_ds_mla" and newer and family != 10:
        raise DoctorError("nvfp4_ds_mla needs the V4.1 KV records, which FlashMLA decodes only on SM100.", hint)
    if newer and dtype not in ("auto", "fp8") and not dtype.endswith("_ds_mla"):
        raise DoctorError(f"DeepseekV4 packed KV layouts only support fp8 kv-cache, got {dtype}.", hint)
    if not newer and dtype != "auto" and not dtype.startswith("fp8"):
        raise DoctorError(f"DeepseekV4 fp8_ds_mla layout only supports fp8 kv-cache, got {dtype}.", hint)


def _has_mega_attention(architecture: Architecture, settings: LaunchSettings) -> bool:
    """Whether the ranks' heads make whole groups (FlashMLA's fused attention, is_available_for); its default there."""
    if settings.attention_backend is not None:
        return settings.attention_backend.upper() == "FLASHMLA_MEGA_ATTN_DSV41"
    size, groups = settings.tensor_parallel_size, architecture.output_groups
    heads = architecture.attention_heads
    return bool(groups) and not heads % size and not groups % size and heads // groups == _MEGA_HEADS
