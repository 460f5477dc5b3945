"""Drafts of speculative decoding that have a config of their own, by the name that vLLM gives them.

A draft's `first` is its embedding and `last` its norm and head; what it shares with its target is taken off where the
two are known (memory/drafting.py).
"""

from collections.abc import Callable, Mapping

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture
from vllm_doctor.memory.families import deepseek_v4, deepseek_v41, dflash, eagle, lattice

Reader = Callable[[Config, Architecture], Architecture]

DRAFTS: Mapping[str, Reader] = {
    "EagleLlamaForCausalLM": eagle.read_eagle,
    "EagleMistralForCausalLM": eagle.read_eagle_mistral,
    "EagleCohereForCausalLM": eagle.read_eagle_cohere,
    "EagleLlama4ForCausalLM": eagle.read_eagle_llama4,
    "EagleMiniCPMForCausalLM": eagle.read_eagle_minicpm,
    "EagleDeepSeekMTPModel": eagle.read_eagle_deepseek,
    "EagleMistralLarge3ForCausalLM": eagle.read_eagle_mistral_large,
    "Eagle3LlamaForCausalLM": eagle.read_eagle3,
    "LlamaForCausalLMEagle3": eagle.read_eagle3,
    "PEagleDraftModel": eagle.read_eagle3,
    "PeagleLlamaForCausalLM": eagle.read_eagle3,
    "Eagle3MiniMaxM2ForCausalLM": eagle.read_eagle3,
    "Eagle3Qwen2_5vlForCausalLM": eagle.read_eagle3,
    "Eagle3Qwen3vlForCausalLM": eagle.read_eagle3,
    "Eagle3Qwen3ForCausalLM": eagle.read_eagle3,
    "PeagleQwen3ForCausalLM": eagle.read_eagle3,
    "Eagle3DeepseekV2ForCausalLM": eagle.read_eagle3_deepseek,
    "Eagle3DeepseekV3ForCausalLM": eagle.read_eagle3_deepseek,
    "DFlashDraftModel": dflash.read_dflash,
    "MuseGlimmerAssistantModel": dflash.read_dflash,
    "DFlashMuseGlimmerAssistantModel": dflash.read_dflash,
    "DFlash2DraftModel": dflash.read_dflash2,
    "LiLiCorrDraftModel": lattice.read_lilicorr,
    "DFlashLagunaForCausalLM": dflash.read_laguna_dflash,
    "Qwen3DSparkModel": dflash.read_dspark,
    "Qwen3OmniDSparkModel": dflash.read_dspark,
    "K3DSparkModel": dflash.read_k3_dspark,
    "Gemma4DSparkModel": dflash.read_gemma4_dspark,
    "Gemma4MTPModel": dflash.read_gemma4_assistant,
    "MedusaModel": eagle.read_medusa,
    "DSparkDraftModel": deepseek_v4.read_v4_dspark,
    "DSparkV41DraftModel": deepseek_v41.read_v41_dspark,
}

# What vLLM 0.32 makes of a config before it looks at the method (config/speculative.py hf_config_override).
_RENAMED: Mapping[str, str] = {
    "deepseek_v3": "DeepSeekMTPModel",
    "deepseek_v32": "DeepseekV32MTPModel",
    "glm_moe_dsa": "DeepseekV32MTPModel",
    "gemma4_assistant": "Gemma4MTPModel",
    "gemma4_unified_assistant": "Gemma4MTPModel",
}
# The one draft of DFlash whose name is left as it is.
_LATTICE = "LiLiCorrDraftModel"
# The layers of DSpark in the checkpoints of DeepSeek V4, whose whole config is the draft's.
_OWN_DSPARK: Mapping[str, str] = {
    "deepseek_v4": "DSparkDraftModel",
    "deepseek_v41": "DSparkV41DraftModel",
    "deepseek_v41_text": "DSparkV41DraftModel",
}
# The methods that vLLM runs drafts of their own classes with, and no other models.
_CLASSES_OF_THEIR_OWN = frozenset(("eagle", "eagle3", "dflash", "dspark"))


def draft_name(config: Config, method: str | None) -> str:
    """The architecture of a draft, as vLLM names it (0.32 transformers_utils/configs/eagle.py)."""
    name = eagle.named(config)
    if name != "MistralLarge3ForCausalLM":
        name = _RENAMED.get(config.model_type, name)
    if method == "eagle" and not name.startswith("Eagle"):
        return f"Eagle{name}"
    if method == "eagle3" and not (name.startswith("Eagle3") or name.endswith("Eagle3")):
        return f"Eagle3{name}"
    if method == "dflash" and not (name.startswith("DFlash") or name.endswith("DFlash") or name == _LATTICE):
        return f"DFlash{name}"
    if method == "dspark" and (own := _OWN_DSPARK.get(config.model_type)) is not None:
        return own
    if method == "dspark" and name == "DSparkDraftModel" and config.model_type == "qwen3":
        return "Qwen3DSparkModel"
    return "MedusaModel" if method == "medusa" else name


def read_draft(config: Config, target: Architecture, method: str | None) -> Architecture | None:
    """The draft of that config; None for a whole model, which is read as any other.

    Raises ConfigError for a draft of a class of its own that is not known.
    """
    name = draft_name(config, method)
    reader = DRAFTS.get(name)
    if reader is None and method in _CLASSES_OF_THEIR_OWN:
        raise ConfigError(f"{name}: how the layers of this draft are made is not known")
    return None if reader is None else reader(config, target)
