"""Models that vLLM runs through Transformers' own code under its backend's names: the layers are the model type's."""

from collections.abc import Mapping

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture

# The types whose layers the backend was seen to divide as vLLM's own classes do (0.32 model_executor/models/
# transformers). Those that are left out it divides otherwise (gpt-oss and Nemotron keep MLPs whole), or nobody looked.
_BY_TYPE: Mapping[str, str] = {
    "cohere": "CohereForCausalLM",
    "ernie4_5": "Ernie4_5ForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "granite": "GraniteForCausalLM",
    "helium": "HeliumForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "seed_oss": "SeedOssForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
}


def read_wrapped(config: Config) -> Architecture:
    """The decoder of that model type; raises ConfigError for others, for towers, and for one that looks both ways."""
    from vllm_doctor.memory.families.registry import reader_of

    name = _BY_TYPE.get(config.model_type)
    if name is None:
        raise ConfigError(f"how Transformers' layers of the type {config.model_type!r:.60} are divided is not known")
    if config.outer:
        raise ConfigError("how Transformers' towers are divided is not known")
    if config.get("is_causal") is False:
        raise ConfigError("is_causal is false: what the Transformers backend caches then is not known")
    return reader_of(name, config)(config)
