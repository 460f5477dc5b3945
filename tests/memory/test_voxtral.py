"""Voxtral Realtime as Mistral's format and as Transformers' config.json name its numbers."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.config_values import ConfigError
from vllm_doctor.memory.facts import LaunchSettings
from vllm_doctor.memory.stages import layers_of_stages
from vllm_doctor.memory.weights import parameters_of, stage_bytes

FIXTURE = Path(__file__).parents[2] / "fixtures" / "memory" / "built_by_vllm.json"
REMAPPED = next(
    m["config"] for m in json.loads(FIXTURE.read_text())["models"] if m["name"] == "VoxtralRealtimeGeneration"
)
ENCODER = {
    "model_type": "voxtral_realtime_encoder",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_mel_bins": 128,
    "sliding_window": 750,
    "head_dim": 64,
}
DECODER = {
    "model_type": "voxtral_realtime_text",
    "vocab_size": 131072,
    "hidden_size": 3072,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "head_dim": 128,
    "sliding_window": 8192,
}
TRANSFORMERS = {
    "architectures": ["VoxtralRealtimeForConditionalGeneration"],
    "model_type": "voxtral_realtime",
    "downsample_factor": 4,
    "tie_word_embeddings": True,
    "audio_config": ENCODER,
    "text_config": DECODER,
}


def test_both_forms_of_the_config_make_the_same_model() -> None:
    """vLLM takes Mistral's own format where the repository has it (0.32 transformers_utils/config.py)."""
    first, second = (read_architecture(json.dumps(c)) for c in (REMAPPED, TRANSFORMERS))
    assert replace(first, name="", model_type="", dtype="") == replace(second, name="", model_type="", dtype="")
    assert parameters_of(first) == 4_429_744_896


def test_the_encoders_layers_are_dealt_out_to_the_stages_too() -> None:
    architecture = read_architecture(json.dumps(REMAPPED))
    launch = LaunchSettings(pipeline_parallel_size=2, environment={"VLLM_PP_LAYER_PARTITION": "13,13"})
    plain = LaunchSettings(pipeline_parallel_size=2)
    assert layers_of_stages(len(architecture.side_layers), plain) == (16, 16)
    assert len(stage_bytes(architecture, plain, None, 2)) == 2
    without = replace(architecture, side_layers=())
    assert stage_bytes(without, launch, None, 2) == stage_bytes(without, plain, None, 2)


def test_without_its_encoder_it_is_no_model() -> None:
    with pytest.raises(ConfigError, match="audio_config is missing"):
        read_architecture(json.dumps({k: v for k, v in TRANSFORMERS.items() if k != "audio_config"}))
