"""A config.json as text, read into the architecture that the plan works on; foreign input, bounded on all sides."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from vllm_doctor.facts.model import TEXT_CONFIGS, text_part
from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.context import Length, derived_length
from vllm_doctor.memory.elements import element_bytes
from vllm_doctor.memory.facts import Architecture
from vllm_doctor.memory.families.registry import TEXT_BY_TYPE, language_model, reader_of, towers_of
from vllm_doctor.memory.quantization import read_quantization
from vllm_doctor.memory.rope import rope_elements

# The largest configs (with quantization maps of every layer) have some megabytes; facts hold at most one.
MAXIMUM_CHARACTERS = 16 * 2**20
MAXIMUM_DEPTH = 64


@lru_cache(maxsize=64)
def read_architecture(config_json: str) -> Architecture:
    """What of a config.json drives memory.

    Raises ConfigError (a DoctorError) for text that is no config, for numbers that no model has, and for an
    architecture whose layers are not known.
    """
    config = parse(config_json)
    try:
        return _read(config)
    except (OverflowError, RecursionError, ZeroDivisionError, MemoryError) as problem:
        raise ConfigError(f"its numbers make no model ({type(problem).__name__})") from None


def parse(config_json: str) -> Mapping[str, Any]:
    """The config as JSON values; raises ConfigError where it is no object, too long or nested too deep."""
    if len(config_json) > MAXIMUM_CHARACTERS:
        raise ConfigError(f"{len(config_json)} characters: too long to be a config")
    try:
        value = msgspec.json.decode(config_json)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        value = _lenient(config_json, str(problem)[:100])
    if not isinstance(value, dict):
        raise ConfigError(f"holds a {type(value).__name__}, not an object")
    if _deeper(value, MAXIMUM_DEPTH):
        raise ConfigError(f"nested deeper than {MAXIMUM_DEPTH} levels")
    return value


def _lenient(config_json: str, complaint: str) -> Any:
    """What Python's json takes and writes beyond the standard: NaN and Infinity, read as null."""
    try:
        return json.loads(config_json, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise ConfigError(f"not JSON: {complaint}") from None


def _deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [m for v in layer for m in (v.values() if isinstance(v, dict) else v) if isinstance(m, dict | list)]
        if not layer:
            return False
    return True


def architecture_name(config: Mapping[str, Any]) -> str:
    """The first of `architectures`; raises ConfigError where there is none."""
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0][:200]
    by_type = TEXT_BY_TYPE.get(config["model_type"]) if isinstance(config.get("model_type"), str) else None
    if by_type is None:
        raise ConfigError("architectures is missing, so its layers are not known")
    return by_type


def _read(values: Mapping[str, Any]) -> Architecture:
    name = architecture_name(values)
    text_values = text_part(values)
    whole = Config(values)
    text = Config(text_values, _text_type(values, text_values), None if text_values is values else values)
    base = reader_of(name, text)(text)
    towers = towers_of(name, whole)
    length = derived_length(whole, text)
    dtype = whole.text("dtype", "torch_dtype") or text.text("dtype", "torch_dtype") or "bfloat16"
    return replace(
        base,
        name=name,
        inside=base.inside or language_model(name, text),
        model_type=whole.model_type,
        dtype=dtype if element_bytes(dtype) else "bfloat16",
        native_max_model_len=_native(length, base.native_max_model_len),
        longest_max_model_len=_longest(length, base.native_max_model_len),
        position_key=length.key,
        quantization=read_quantization(values, text_values),
        rope_elements=base.rope_elements + rope_elements(text, base, length.positions),
        **towers.changes(base),
    )


def _native(length: Length, own: int | None) -> int:
    """The derived length, and what an architecture's own class says of it: a limit, or all there is without a key."""
    if own is None:
        return length.tokens
    return own if length.key is None else min(length.tokens, own)


def _longest(length: Length, own: int | None) -> int | None:
    """The most that may be asked for, within the limit of the architecture's own class."""
    if own is None or length.longest is None:
        return length.longest or own
    return min(length.longest, own)


def _text_type(values: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """The model type of the text part, where it does not say itself: the outer type's default for that key."""
    key = next((k for k in TEXT_CONFIGS if values.get(k) is text), None)
    if key is None:
        return ""
    found = Config(values).get(f"{key}.model_type")
    return found if isinstance(found, str) else "llama"
