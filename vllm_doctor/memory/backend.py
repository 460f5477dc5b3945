"""Which of vLLM's classes a launch runs a config with: `--model-impl` asks for Transformers' code, or TerraTorch's."""

import msgspec

from vllm_doctor.facts import Launch
from vllm_doctor.facts.model import text_part
from vllm_doctor.memory.architecture import architecture_name, parse, read_architecture
from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.facts import Architecture

# 0.32 transformers_utils/model_arch_config_convertor.py get_num_experts.
_EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
# A config with one of these has a text part in Transformers' own class, be it written out or not (Qwen2-VL).
_TOWERS = ("vision_config", "audio_config")
# Ends of names that stand for vectors (0.32 config/model.py _SUFFIX_TO_DEFAULTS); others that make words keep a head.
_VECTORS = ("ForTextEncoding", "EmbeddingModel", "Model")
_SCORES = "ForSequenceClassification"


def architecture_of(config_json: str, launch: Launch | None) -> Architecture:
    """What of the config drives memory, as this launch runs it; raises ConfigError as `read_architecture` does."""
    asked = launch.value("--model-impl") if launch is not None else None
    if asked not in ("transformers", "terratorch"):
        return read_architecture(config_json)
    values = parse(config_json)
    name = "Terratorch"
    if asked == "transformers":
        text = text_part(values)
        nested = text is not values or any(isinstance(values.get(key), dict) for key in _TOWERS)
        name = backend_class(architecture_name(values), Config(text), nested=nested)
    return read_architecture(msgspec.json.encode({**values, "architectures": [name]}).decode())


def backend_class(name: str, text: Config, *, nested: bool) -> str:
    """The backend's class for an architecture (0.32 config/model.py _get_transformers_backend_cls)."""
    if name.startswith("Transformers"):
        return name
    is_sparse = any(isinstance(found := text.get(key), int | list) and found for key in _EXPERTS)
    kind = "ForCausalLM"
    if name.endswith(_SCORES):
        kind = _SCORES
    elif name.endswith(_VECTORS):
        kind = "EmbeddingModel"
    return f"Transformers{'MultiModal' if nested else ''}{'MoE' if is_sparse else ''}{kind}"
