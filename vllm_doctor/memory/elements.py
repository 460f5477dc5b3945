"""Sizes of stored numbers, by the names that configs and flags use."""

# torch's names as configs write them (`torch_dtype`), and the flag's own (`--dtype half`): vLLM 0.32 config/model.py
# _STR_DTYPE_TO_TORCH_DTYPE.
_BYTES = {
    "float64": 8,
    "float32": 4,
    "float": 4,
    "float16": 2,
    "half": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
    "uint8": 1,
}

# Block-wise KV formats: bytes of a head's K and V, as functions of the head size, in _packed_bytes below.
_SCALE_BYTES = 4


def element_bytes(name: str) -> int | None:
    """Bytes of one number of that dtype; None for a name that is none."""
    return _BYTES.get(name.lower().removeprefix("torch."))


def is_fp8(kv_cache_dtype: str) -> bool:
    """Whether the KV cache holds plain FP8 numbers (v1/kv_cache_interface.py get_kv_quant_mode, 0.32)."""
    return kv_cache_dtype.startswith("fp8") and not kv_cache_dtype.endswith(("per_token_head", "ds_mla"))


def cache_head_bytes(kv_cache_dtype: str, model_bytes: int, key_size: int, value_size: int) -> int | None:
    """Bytes of one token's keys and values in one head; None for a format that is not known.

    vLLM 0.32: v1/kv_cache_interface.py AttentionSpec.state_content_size_bytes; v1/attention/backends/triton_attn.py
    customize_spec (an fp32 scale per side); flashinfer.py nvfp4_kv_cache_full_dim (4 bits, an FP8 scale per 16).
    """
    numbers = key_size + value_size
    if kv_cache_dtype == "auto":
        return numbers * model_bytes
    if kv_cache_dtype in ("fp8_per_token_head", "int8_per_token_head"):
        return numbers + 2 * _SCALE_BYTES
    if kv_cache_dtype == "int4_per_token_head":
        return key_size // 2 + value_size // 2 + 2 * _SCALE_BYTES
    if kv_cache_dtype in ("nvfp4", "nvfp4_4over6"):
        return sum(size // 2 + size // 16 for size in (key_size, value_size))
    if is_fp8(kv_cache_dtype):
        return numbers
    size = element_bytes(kv_cache_dtype)
    return None if size is None else numbers * size


def latent_bytes(kv_cache_dtype: str, model_bytes: int, size: int) -> int | None:
    """Bytes of one token's MLA latent (mla_attention.py get_kv_cache_spec, 0.32); None for an unknown format."""
    packed = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}.get(kv_cache_dtype)
    return packed if packed is not None else cache_head_bytes(kv_cache_dtype, model_bytes, size, 0)
