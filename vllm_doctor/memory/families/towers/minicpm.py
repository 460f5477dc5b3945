"""MiniCPM-V and -o: SigLIP, a resampler of learned queries, in -o Whisper's encoder (minicpmv.py, minicpmo.py)."""

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.blocks import (
    EVERY_MEDIUM,
    Towers,
    depth_of,
    kept,
    layer_norm,
    numbers,
    part,
    perceptron,
    times,
)
from vllm_doctor.memory.families.towers.vits import siglip, whole_whisper

# The language models of the versions (minicpmv.py _SUPPORT_VERSION, minicpmo.py).
_LANGUAGE_MODELS = {
    "2.0": "MiniCPMForCausalLM",
    "2.5": "LlamaForCausalLM",
    "2.6": "Qwen2ForCausalLM",
    "4.0": "LlamaForCausalLM",
    "4.5": "Qwen3ForCausalLM",
}


def version_of(whole: Config) -> str:
    """The version; a config that has none is of 2.0 or 2.5, told apart by its numbers (get_version_by_config)."""
    found = whole.get("version")
    if isinstance(found, str | int | float) and not isinstance(found, bool):
        return f"{float(found):.1f}" if _is_number(found) else str(found)[:20]
    first = whole.optional("hidden_size") == 2304 and whole.optional("query_num") == 64
    return "2.0" if first else "2.5"


def _is_number(value: str | float) -> bool:
    try:
        return abs(float(value)) < 100
    except ValueError:
        return False


def language_model(whole: Config) -> str:
    """The name of the language model inside; raises ConfigError for a version that vLLM 0.32 does not know."""
    version = version_of(whole)
    if version not in _LANGUAGE_MODELS:
        raise ConfigError(f"version {version} of MiniCPM-V is not known")
    return _LANGUAGE_MODELS[version]


def resampler(queries: int, width: int, columns: int) -> Tensors:
    """Queries that attend to the patches, whole on every rank (resampler.py, minicpmv.py Resampler2_5)."""
    return (
        *numbers(queries, width),
        *numbers(width, width),
        *(kept(width, columns, bias=False) if columns != width else ()),
        *kept(3 * width, width),
        *kept(width, width),
        *times(layer_norm(width), 3),
    )


def vision(whole: Config) -> Towers:
    """MiniCPM-V; the tower of 2.0 is timm's, and only estimated."""
    tower = part(whole, "vision_config")
    layers = depth_of(tower) - (1 if whole.flag("drop_vision_last_layer") else 0)
    width = tower.positive("hidden_size")
    joins = resampler(whole.positive("query_num"), whole.positive("hidden_size"), width)
    doubts = ("the vision tower of MiniCPM-V 2.0 is an estimate",) if version_of(whole) == "2.0" else ()
    return Towers((*siglip(tower, layers, post_norm=True), *joins), True, width, layers, doubts)


def omni(whole: Config) -> Towers:
    """MiniCPM-o: the same, and Whisper's encoder with a projector."""
    seen = vision(whole)
    audio = whole.section("audio_config")
    if audio is None or not whole.flag("init_audio", default=True):
        return seen
    hidden = whole.positive("hidden_size")
    joins = perceptron(audio.positive("encoder_ffn_dim") // 4, hidden, hidden, split=False)
    return seen._replace(tensors=(*seen.tensors, *whole_whisper(audio), *joins), media=EVERY_MEDIUM)
