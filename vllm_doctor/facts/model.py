"""Facts about a model: where it was found, its config, tokenizer, chat template and weight files."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from vllm_doctor.facts.base import Bytes, Count, Facts, Section, Unknown

# Where multi-modal configs keep the language model's values (transformers 5.19 `PreTrainedConfig.get_text_config`, and
# the names that models with code of their own use).
TEXT_CONFIGS = (
    "text_config",
    "llm_config",
    "language_config",
    "thinker_config",
    "decoder",
    "generator",
    "text_encoder",
)


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the language model: the whole where nothing is nested.

    A `text_config` that has a type and leaves its numbers to the defaults of that type counts too (LLaVA 1.5).
    """
    for key in TEXT_CONFIGS:
        nested = config.get(key)
        if isinstance(nested, dict) and _has_numbers(nested):
            return nested
        if isinstance(nested, dict) and isinstance(inner := nested.get("text_config"), dict):
            return inner
    nested = config.get("text_config")
    if isinstance(nested, dict) and isinstance(nested.get("model_type"), str) and not _has_numbers(config):
        return nested
    return config


def _has_numbers(config: Mapping[str, Any]) -> bool:
    return "hidden_size" in config or "num_attention_heads" in config


class ModelSource(str, Enum):
    """Where the facts come from."""

    FOLDER = "folder"
    CACHE = "cache"
    HUB = "hub"
    NOWHERE = "nowhere"


class ModelProblem(Facts, frozen=True):
    """Something that is wrong with a file of the model; `kind` is one of the words below.

    `missing`, `empty`, `truncated`, `lfs-pointer`, `not-json`, `bad-header`, `unreadable`, `index-names-missing-file`,
    `index-names-missing-tensor`, `not-found`, `gated`, `unauthorized`, `unreachable`, `not-cached`,
    `bad-name`, `incomplete-download`.
    """

    kind: str
    file: str
    detail: str


class WeightFile(Facts, frozen=True):
    """One weight file; `format` is safetensors, pytorch, gguf, ...; `tensors` None where the header was not read."""

    name: str
    format: str
    size_bytes: Bytes | Unknown
    tensors: Count | None = None
    parameters: Count | None = None
    dtypes: Mapping[str, Count] = {}


class ChatTemplate(Section, frozen=True):
    """The chat template; `uses_tools` when it reads `tools`; `error` when Jinja cannot parse it."""

    source: str
    uses_tools: bool
    uses_system: bool
    error: str | None = None
    text: str = ""


class ModelConfig(Section, frozen=True):
    """config.json as vLLM reads it: the text model's values where the config nests them (`text_config`).

    None stands for a key that is not there. `auto_map` are the Auto classes that the repository's own code provides
    (`AutoModelForCausalLM`), `remote_code` whether there are any. `raw` is the whole config as JSON text, bounded in
    size: keys that read like secrets, and giant values, are left out.
    """

    architectures: tuple[str, ...] = ()
    model_type: str | None = None
    text_model_type: str | None = None
    hidden_size: Count | None = None
    num_hidden_layers: Count | None = None
    num_attention_heads: Count | None = None
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    vocab_size: Count | None = None
    max_position_embeddings: Count | None = None
    rope_type: str | None = None
    rope_scaling: Mapping[str, float | str] | None = None
    dtype: str | None = None
    quantization_method: str | None = None
    remote_code: bool = False
    auto_map: tuple[str, ...] = ()
    is_encoder_decoder: bool = False
    is_multimodal: bool = False
    raw: str = "{}"

    def whole(self) -> Mapping[str, Any]:
        """The config as JSON values; foreign input: any key may be absent or of any type."""
        try:
            value = msgspec.json.decode(self.raw)
        except (msgspec.DecodeError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def text(self) -> Mapping[str, Any]:
        """The language model's part of `whole`."""
        return text_part(self.whole())


class LoraAdapter(Facts, frozen=True):
    """An adapter that `--lora-modules` names, as its adapter_config.json and safetensors header say.

    `rank` is the highest of `r` and `rank_pattern`, None where it could not be read. `target_modules` are those of the
    config, `tensor_modules` the last names of the modules that have weights (what vLLM compares); None: not read.
    `unsupported` names PEFT features in use that vLLM refuses. `problem` says why the adapter could not be read.
    """

    name: str
    path: str
    rank: Count | None = None
    base_model: str | None = None
    target_modules: tuple[str, ...] = ()
    tensor_modules: tuple[str, ...] | None = None
    unsupported: tuple[str, ...] = ()
    problem: ModelProblem | None = None


class Model(Section, frozen=True):
    """A model as a launch names it.

    `given` is the name as written; `path` the folder examined. `tokenizer_files` are the names found. `tensor_names`
    are those of all safetensors headers, sorted; None where not all of them could be read. Of a model with more than
    5,000 tensors only the first expert of each layer is listed. `hub_offline`: the launch is told not to ask the hub.
    `adapter` is the LoRA adapter that the folder holds. `quantization_files` are the separate quantization configs.
    `hub_endpoint` is the hub where it is not huggingface.co.
    """

    given: str
    source: ModelSource
    path: str | None
    revision: str | None
    config: ModelConfig | Unknown
    chat_template: ChatTemplate | Unknown | None
    tokenizer_files: tuple[str, ...]
    weight_files: tuple[WeightFile, ...]
    tensor_names: tuple[str, ...] | None
    tensor_shapes: Mapping[str, tuple[Count, ...]] | None
    problems: tuple[ModelProblem, ...]
    is_lora_adapter: bool = False
    vocabulary_markers: tuple[str, ...] | Unknown = ()
    suggestions: tuple[str, ...] = ()
    lora_adapters: tuple[LoraAdapter, ...] = ()
    adapter: LoraAdapter | None = None
    quantization_files: tuple[str, ...] = ()
    hub_offline: bool = False
    hub_endpoint: str | None = None
