"""Parallel sizes that vLLM refuses, in its words and by its releases."""

import json
from typing import Any

import pytest

from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Architecture, LaunchSettings, Release
from vllm_doctor.memory.parallelism import indivisible, sizes

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 4,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
EIGHT = LaunchSettings(tensor_parallel_size=8)


def model(packing: dict[str, Any] | None = None, **changes: Any) -> Architecture:
    packed = {} if packing is None else {"quantization_config": packing}
    return read_architecture(json.dumps({**LLAMA, **packed, **changes}))


def weights(**numbers: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": numbers}},
        "ignore": ["lm_head"],
    }


GROUPS = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}


@pytest.mark.parametrize(
    ("packing", "release", "said"),
    [
        (None, (0, 32, 0), None),
        (
            BLOCKS,
            (0, 32, 0),
            "Weight input_size_per_partition = 1728 is not divisible by weight quantization block_k = 128.",
        ),
        (BLOCKS, (0, 6, 6), None),
        (AWQ, (0, 32, 0), "The input size is not aligned with the quantized weight shape."),
        (AWQ, (0, 6, 0), "The input size is not aligned with the quantized weight shape."),
        ({**AWQ, "quant_method": "gptq"}, (0, 32, 0), None),
        ({**AWQ, "group_size": 64}, (0, 32, 0), None),
        ({**AWQ, "group_size": -1}, (0, 32, 0), None),
        ({**AWQ, "modules_to_not_convert": ["mlp"]}, (0, 32, 0), None),
        (weights(**GROUPS), (0, 32, 0), "Weight input_size_per_partition=1728 is not divisible by group_size=128."),
        (weights(**GROUPS), (0, 20, 0), "AssertionError: input_size_per_partition 1728 % group_size 128 is not 0"),
        (weights(num_bits=8, type="int", strategy="channel"), (0, 32, 0), None),
        (weights(num_bits=8, type="float", strategy="channel"), (0, 32, 0), None),
    ],
)
def test_packed_widths(packing: dict[str, Any] | None, release: Release, said: str | None) -> None:
    found = indivisible(model(packing, num_attention_heads=64, num_key_value_heads=64, head_dim=128), EIGHT, release)
    assert found is said if said is None else (found or "").startswith(said)


def test_four_ranks_divide_what_eight_do_not() -> None:
    packed = model(AWQ)
    assert sizes(packed, 16) == (1, 2, 4)
    assert sizes(model(), 16) == (1, 2, 4, 8)


def experts(width: int) -> Architecture:
    moe = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": width,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 16384,
    }
    return model(BLOCKS, **moe)


@pytest.mark.parametrize(
    ("width", "settings", "release", "refused"),
    [
        (1536, EIGHT, (0, 28, 0), True),
        (1536, EIGHT, (0, 32, 0), False),
        (1536, LaunchSettings(tensor_parallel_size=4), (0, 28, 0), False),
        (1536, LaunchSettings(tensor_parallel_size=8, expert_parallel=True), (0, 28, 0), False),
        (2048, EIGHT, (0, 28, 0), False),
    ],
)
def test_experts_of_blocks(width: int, settings: LaunchSettings, release: Release, refused: bool) -> None:
    found = indivisible(experts(width), settings, release)
    assert (found is not None) is refused
    assert not refused or "gate's and up's weight = 192 is not divisible" in str(found)


def test_not_every_model_has_pipeline_stages() -> None:
    stages = LaunchSettings(pipeline_parallel_size=2)
    assert indivisible(model(), stages) is None
    encoder: dict[str, Any] = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 12,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    }
    said = indivisible(model(**encoder), stages) or ""
    assert said.startswith("Pipeline parallelism is not supported for this model.")
