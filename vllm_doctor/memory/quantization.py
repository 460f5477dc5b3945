"""How a checkpoint packs its weights, read from its quantization config under any of the names it may have."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from vllm_doctor.memory.config_values import ConfigError
from vllm_doctor.memory.facts import Quantization

_LISTS = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers", "llm_int8_skip_modules")
_MAXIMUM_PATTERNS = 4096


def read_quantization(whole: Mapping[str, Any], text: Mapping[str, Any]) -> Quantization | None:
    """The checkpoint's quantization; None for an unquantized one.

    vLLM 0.32 model_arch_config_convertor.py _normalize_quantization_config. Raises ConfigError for odd numbers.
    """
    config = next(
        (
            c
            for part in (whole, text)
            for k in ("quantization_config", "compression_config")
            if isinstance(c := part.get(k), dict) and c
        ),
        None,
    )
    if config is None:
        return None
    inner = config.get("quantization")
    if isinstance(inner, dict):
        config = {**config, **inner}
    name = _method(config)
    if name is None:
        return None
    found = _READERS.get(name, _plain)(name, config)
    return _with_experts(found, whole, config) if found.method == "fp8" else found


def _with_experts(found: Quantization, whole: Mapping[str, Any], config: Mapping[str, Any]) -> Quantization:
    """DeepSeek V4's experts in FP4 beside FP8, whose scales are a byte each then (0.32 deepseek_v4/quant_config.py)."""
    if whole.get("model_type") not in _FP4_EXPERTS:
        return found
    kind = whole.get("expert_dtype", config.get("expert_dtype", "fp4"))
    # ModelOpt's list of what is not of FP4 is none of what is not of FP8 (Fp8Config.from_config).
    found = replace(found, ignored=_ignored({key: config.get(key) for key in _FP8_LISTS}))
    if kind == "fp8":
        return found
    if kind != "fp4":
        raise ConfigError(f"expert_dtype is {str(kind)[:40]}, neither fp4 nor fp8, which vLLM refuses")
    experts = "nvfp4" if str(config.get("moe_quant_algo") or "").upper() == "NVFP4" else "mxfp4"
    # Blocks of 32 are served as MXFP8: one scale for 32 columns of every row (0.32 deepseek_v41/quant_config.py).
    block = (1, 32) if found.block == (32, 32) else found.block
    return replace(found, experts=experts, scale_bytes=1, block=block)


_FP4_EXPERTS = ("deepseek_v4", "deepseek_v41")
_FP8_LISTS = ("ignored_layers", "modules_to_not_convert")
Reader = Callable[[str, Mapping[str, Any]], Quantization]


def _method(config: Mapping[str, Any]) -> str | None:
    name = config.get("quant_method")
    name = name.lower().replace("compressed_tensors", "compressed-tensors") if isinstance(name, str) else None
    algorithm = str(config.get("quant_algo") or "").upper()
    if name is None and algorithm:
        name = "modelopt"
    if name == "modelopt" and "FP4" in algorithm:
        return "modelopt_fp4"
    return name


def _ignored(config: Mapping[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    for key in _LISTS:
        value = config.get(key)
        if isinstance(value, list):
            names += [v[:200] for v in value[:_MAXIMUM_PATTERNS] if isinstance(v, str)]
    return tuple(dict.fromkeys(names))


def _number(config: Mapping[str, Any], *keys: str, default: int) -> int:
    for key in keys:
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= 2**20:
            raise ConfigError(f"quantization_config: {key} is {str(value)[:40]}, not a number of that kind")
        return value
    return default


def _bits(config: Mapping[str, Any], *keys: str, default: int) -> int:
    bits = _number(config, *keys, default=default)
    if bits not in (2, 3, 4, 5, 6, 8, 16):
        raise ConfigError(f"quantization_config: weights of {bits} bits")
    return bits


def _gptq(name: str, config: Mapping[str, Any]) -> Quantization:
    return Quantization(
        method=name,
        bits=_bits(config, "bits", "w_bit", default=4),
        group=max(0, _number(config, "group_size", "q_group_size", default=128)),
        symmetric=False,
        ignored=_ignored(config),
        quantized_head=config.get("lm_head") is True,
        activation_order=config.get("desc_act") is True,
    )


def _fp8(_: str, config: Mapping[str, Any]) -> Quantization:
    block = config.get("weight_block_size")
    sides = None
    if isinstance(block, list) and len(block) == 2 and all(isinstance(s, int) and 0 < s <= 4096 for s in block):
        sides = (int(block[0]), int(block[1]))
    return Quantization(
        method="fp8",
        bits=8,
        group=-1,
        block=sides,
        static_activations=config.get("activation_scheme") == "static",
        ignored=_ignored(config),
        float_format=True,
    )


def _fbgemm(_: str, config: Mapping[str, Any]) -> Quantization:
    return Quantization(method="fp8", bits=8, group=0, ignored=_ignored(config), float_format=True)


def _modelopt(name: str, config: Mapping[str, Any]) -> Quantization:
    algorithm = str(config.get("quant_algo") or "").upper()
    cache = "fp8" if str(config.get("kv_cache_quant_algo") or "").upper() == "FP8" else None
    if name == "modelopt_fp4":
        return Quantization(
            method="nvfp4",
            bits=4,
            group=_number(config, "group_size", default=16),
            ignored=_ignored(config),
            kv_cache_dtype=cache,
            static_activations=True,
            float_format=True,
        )
    channel = "PER_CHANNEL" in algorithm or "PB" in algorithm
    return Quantization(
        method="fp8",
        bits=8,
        group=0 if channel else -1,
        static_activations=True,
        ignored=_ignored(config),
        kv_cache_dtype=cache,
        float_format=True,
    )


def _compressed(_: str, config: Mapping[str, Any]) -> Quantization:
    weights, activations = next(_schemes(config), ({}, {}))
    floating = weights.get("type") == "float"
    bits = _bits(weights, "num_bits", default=8)
    strategy = weights.get("strategy")
    block = weights.get("block_structure")
    sides = (128, 128) if strategy == "block" else None
    if isinstance(block, list) and len(block) == 2 and all(isinstance(s, int) and 0 < s <= 4096 for s in block):
        sides = (int(block[0]), int(block[1]))
    group = {"tensor": -1, "channel": 0}.get(str(strategy), _number(weights, "group_size", default=0))
    packed = str(config.get("format") or "")
    method = "compressed-tensors"
    if floating and bits == 4:
        method = "mxfp4" if "mxfp4" in packed or weights.get("group_size") == 32 else "nvfp4"
        group = _number(weights, "group_size", default=16)
    cache = config.get("kv_cache_scheme")
    return Quantization(
        method=method,
        bits=bits,
        group=max(group, -1),
        block=sides if strategy == "block" else None,
        symmetric=weights.get("symmetric") is not False,
        static_activations=activations.get("dynamic") is False,
        ignored=_ignored(config),
        kv_cache_dtype="fp8" if isinstance(cache, dict) and cache.get("type") == "float" else None,
        float_format=floating,
        activation_order=weights.get("actorder") in ("group", "dynamic"),
    )


def _schemes(config: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    groups = config.get("config_groups")
    for group in list(groups.values())[:64] if isinstance(groups, dict) else []:
        if isinstance(group, dict) and isinstance(weights := group.get("weights"), dict):
            activations = group.get("input_activations")
            yield weights, activations if isinstance(activations, dict) else {}


def _mxfp4(_: str, config: Mapping[str, Any]) -> Quantization:
    return Quantization(method="mxfp4", bits=4, group=32, ignored=_ignored(config), float_format=True)


def _bitsandbytes(name: str, config: Mapping[str, Any]) -> Quantization:
    eight = config.get("load_in_8bit") is True
    return Quantization(method=name, bits=8 if eight else 4, group=0 if eight else 64, ignored=_ignored(config))


def _plain(name: str, config: Mapping[str, Any]) -> Quantization:
    return Quantization(method=name, bits=_bits(config, "bits", default=8), ignored=_ignored(config))


_READERS: Mapping[str, Reader] = {
    "gptq": _gptq,
    "gptq_marlin": _gptq,
    "auto-round": _gptq,
    "awq": _gptq,
    "awq_marlin": _gptq,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "compressed-tensors": _compressed,
    "mxfp4": _mxfp4,
    "bitsandbytes": _bitsandbytes,
}
