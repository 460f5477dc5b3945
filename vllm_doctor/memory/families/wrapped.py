"""Models that vLLM runs through Transformers' own code under its backend's names: the layers are the model type's."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Tensor

# The types whose layers the backend was seen to divide as vLLM's own classes do (0.32 model_executor/models/
# transformers). Those that are left out it divides otherwise (gpt-oss and Nemotron keep MLPs whole), or nobody looked.
_BY_TYPE: Mapping[str, str] = {
    "arcee": "ArceeForCausalLM",
    "cohere": "CohereForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "cwm": "CwmForCausalLM",
    "ernie4_5": "Ernie4_5ForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "glm": "GlmForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
    "granite": "GraniteForCausalLM",
    "granite_swa": "GraniteSWAForCausalLM",
    "helium": "HeliumForCausalLM",
    "hyperclovax": "HyperCLOVAXForCausalLM",
    "jais2": "Jais2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "olmo": "OlmoForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "phi": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "seed_oss": "SeedOssForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "vaultgemma": "VaultGemmaForCausalLM",
}

# The language models inside of multi-modal ones, by the type of their part of the config; likewise.
_INSIDE: Mapping[str, str] = {
    **_BY_TYPE,
    "emu3_text_model": "LlamaForCausalLM",
    "glm4v_moe_text": "Glm4MoeForCausalLM",
    "glm4v_text": "Glm4ForCausalLM",
    "glm_ocr_text": "Glm4ForCausalLM",
    "hunyuan_vl_text": "HunYuanDenseV1ForCausalLM",
    "qwen2_5_vl": "Qwen2ForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen2_vl": "Qwen2ForCausalLM",
    "qwen2_vl_text": "Qwen2ForCausalLM",
    "qwen3_vl_moe_text": "Qwen3MoeForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
}
# What the classes of Transformers have whatever the config says (5.19 glm4v/modeling_glm4v.py).
_OWN_VALUES: Mapping[str, Mapping[str, bool]] = {"glm4v_text": {"attention_bias": True}}


def read_wrapped(config: Config) -> Architecture:
    """The decoder of that model type; raises ConfigError for others, for towers, and for one that looks both ways."""
    name = _BY_TYPE.get(config.model_type)
    if name is None:
        raise ConfigError(f"how Transformers' layers of the type {config.model_type!r:.60} are divided is not known")
    if config.outer:
        raise ConfigError("how Transformers' towers are divided is not known")
    if config.get("is_causal") is False:
        raise ConfigError("is_causal is false: what the Transformers backend caches then is not known")
    return _reader(name, config)(config)


def read_inside(config: Config) -> Architecture:
    """The language model of a multi-modal one; raises ConfigError for types that are not known, and for text alone."""
    name = _INSIDE.get(config.model_type)
    if name is None:
        raise ConfigError(f"how Transformers' layers of the type {config.model_type!r:.60} are divided is not known")
    if not config.outer and not any(isinstance(config.get(key), dict) for key in ("vision_config", "audio_config")):
        raise ConfigError("no part of it is a tower, and the Transformers backend asks for a processor of one")
    if config.get("is_causal") is False:
        raise ConfigError("is_causal is false: what the Transformers backend caches then is not known")
    # Either part may say that lm_head is the embedding (0.32 models/transformers/base.py _get_tie_word_embeddings).
    key = "tie_word_embeddings"
    tied = config.flag(key) or (bool(config.outer) and Config(config.outer).flag(key))
    outer = {**config.outer, key: tied} if config.outer else None
    values = {**config.values, **_OWN_VALUES.get(config.model_type, {}), key: tied}
    return _as_transformers(_reader(name, config)(Config(values, config.model_type, outer)))


def _reader(name: str, config: Config) -> Callable[[Config], Architecture]:
    """The reader without what vLLM's own class adds to a sliding window."""
    from vllm_doctor.memory.families.decoder import decoder
    from vllm_doctor.memory.families.registry import reader_of
    from vllm_doctor.memory.families.styles import STYLES

    style = STYLES.get(name)
    return decoder(style._replace(widen=0)) if style is not None else reader_of(name, config)


def _as_transformers(base: Architecture) -> Architecture:
    """Routers in the model's dtype; their corrections are buffers."""
    return replace(base, kinds=tuple(Layer(tensors=_plain_router(k.tensors), caches=k.caches) for k in base.kinds))


def _plain_router(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    kept = (t for t in tensors if not t.name.endswith("e_score_correction_bias"))
    return tuple(replace(t, element_bytes=None) if t.name == "mlp.gate" else t for t in kept)
