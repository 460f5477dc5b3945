"""Reads config.json as vLLM does: the text model's values where they are nested, any JSON type survives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from vllm_doctor.facts import ModelConfig, ModelProblem, Unknown
from vllm_doctor.facts.model import text_part
from vllm_doctor.probes.model.reading import Unreadable, read_object
from vllm_doctor.redact import is_secret_name

MAXIMUM_BYTES = 16 * 2**20
MAXIMUM_RAW_BYTES = 1_000_000
MAXIMUM_NUMBER = 2**53
MODELOPT_FILE = "hf_quant_config.json"

Object = Mapping[str, Any]

# Keys that a config of images, sound or video has.
MEDIA_CONFIGS = ("vision_config", "audio_config", "vision_tower", "mm_vision_tower", "image_token_id", "video_token_id")


def read_config(folder: Path, names: frozenset[str]) -> tuple[ModelConfig | Unknown, ModelProblem | None]:
    """The folder's config.json; Unknown, with the problem, where it cannot be read."""
    try:
        config = read_object(folder / "config.json", MAXIMUM_BYTES)
    except Unreadable as unreadable:
        problem = unreadable.problem
        if problem.kind == "missing" and "params.json" in names:
            return Unknown("params.json: Mistral's own format, which is not read"), None
        return Unknown(f"config.json: {problem.detail}"), problem
    return parse_config(config, _separate(folder, names)), None


def _separate(folder: Path, names: frozenset[str]) -> Object:
    """hf_quant_config.json, where ModelOpt up to 0.29 writes what others write into config.json."""
    if MODELOPT_FILE not in names:
        return {}
    try:
        return read_object(folder / MODELOPT_FILE, MAXIMUM_BYTES)
    except Unreadable:
        return {}


def parse_config(config: Object, separate: Object | None = None) -> ModelConfig:
    """The facts of a config; a value of another type than it should have counts as absent.

    `separate` is a quantization config of a file of its own, which counts where config.json has none.
    """
    text = text_part(config)
    first = _First(text, config)
    quantization = _quantization(config) or _quantization(text) or separate or {}
    rope = _rope(text) or _rope(config)
    auto_map = config.get("auto_map")
    classes = tuple(sorted(k for k in auto_map if isinstance(k, str))) if isinstance(auto_map, dict) else ()
    return ModelConfig(
        architectures=_texts(config.get("architectures")),
        model_type=_text(config.get("model_type")),
        text_model_type=_text(text.get("model_type")),
        hidden_size=first.number("hidden_size", "n_embd", "d_model"),
        num_hidden_layers=first.number("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        num_attention_heads=first.number("num_attention_heads", "n_head", "n_heads"),
        num_key_value_heads=first.number("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num"),
        head_dim=first.number("head_dim"),
        vocab_size=first.number("vocab_size", "padded_vocab_size"),
        max_position_embeddings=first.number("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
        rope_type=_rope_type(rope),
        rope_scaling=_plain(rope),
        dtype=first.text("dtype", "torch_dtype"),
        quantization_method=_method(quantization),
        remote_code=bool(classes),
        auto_map=classes,
        is_encoder_decoder=config.get("is_encoder_decoder") is True,
        is_multimodal=any(key in config for key in MEDIA_CONFIGS),
        raw=raw_text(config),
    )


class _First:
    """The first of several keys that has a value of the right type, in the text config, then in the whole."""

    def __init__(self, *configs: Object) -> None:
        self._configs = configs

    def number(self, *keys: str) -> int | None:
        return next((v for v in self._values(keys) if _is_count(v)), None)

    def text(self, *keys: str) -> str | None:
        return next((v for v in self._values(keys) if isinstance(v, str)), None)

    def _values(self, keys: tuple[str, ...]) -> list[Any]:
        return [c[k] for c in self._configs for k in keys if k in c]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAXIMUM_NUMBER


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(v for v in value[:16] if isinstance(v, str)) if isinstance(value, list) else ()


def _quantization(config: Object) -> Object | None:
    """vLLM 0.32 model_arch_config_convertor.py `_normalize_quantization_config`: compressed-tensors has its own key."""
    for key in ("quantization_config", "compression_config"):
        if isinstance(value := config.get(key), dict):
            return value
    return None


def _method(quantization: Object) -> str | None:
    """The method in vLLM's spelling (the same function): lower case, ModelOpt's by its algorithm."""
    if not quantization:
        return None
    nested = quantization.get("quantization")
    producer = quantization.get("producer")
    if isinstance(nested, dict) and isinstance(producer, dict) and producer.get("name") == "modelopt":
        algorithm = str(nested.get("quant_algo", "")).upper()
        return "modelopt_fp4" if "FP4" in algorithm else "modelopt"
    method = quantization.get("quant_method")
    return method.lower().replace("compressed_tensors", "compressed-tensors") if isinstance(method, str) else None


def _rope(config: Object) -> Object | None:
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(value := config.get(key), dict) and value:
            return value
    return None


def _rope_type(rope: Object | None) -> str | None:
    """`rope_type`, or `type` as older configs have it; of parameters per layer type, the first that has one."""
    if rope is None:
        return None
    for values in (rope, *(v for v in rope.values() if isinstance(v, dict))):
        for key in ("rope_type", "type"):
            if isinstance(name := values.get(key), str):
                return name
    return None


def _plain(rope: Object | None) -> dict[str, float | str] | None:
    """The numbers and words in it; those of the first layer type where they are nested."""
    if rope is None:
        return None
    nested = [v for v in rope.values() if isinstance(v, dict)]
    values = nested[0] if nested and len(nested) == len(rope) else rope
    return {k: v for k, v in list(values.items())[:64] if _is_plain(v)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and -(2.0**53) <= value <= 2.0**53


def raw_text(config: Object) -> str:
    """The config as JSON text of at most 1 MB: without keys named as secrets; only its scalars where it is longer."""
    for pruned in (_pruned(config), {k: v for k, v in config.items() if _is_small(k, v)}):
        text = msgspec.json.encode(pruned)
        if len(text) <= MAXIMUM_RAW_BYTES:
            return text.decode("utf-8", "replace")
    return "{}"


def _is_small(key: str, value: Any) -> bool:
    return not is_secret_name(key) and isinstance(value, int | float | bool | None)


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        kept = [k for k in list(value)[:4096] if isinstance(k, str) and not is_secret_name(k)]
        return {k[:200]: _pruned(value[k]) for k in kept}
    if isinstance(value, list):
        return [_pruned(v) for v in value[:4096]]
    return value[:4000] if isinstance(value, str) else value
