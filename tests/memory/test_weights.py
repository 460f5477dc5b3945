"""Weights: parameters, shards, packed checkpoints, LoRA, drafts, offload, files."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from tests.memory.building import model, planned
from vllm_doctor.facts import WeightFile
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import DraftModel, LaunchSettings
from vllm_doctor.memory.plan import Certainty, Verdict
from vllm_doctor.memory.sharding import vocabulary_rows
from vllm_doctor.memory.weights import parameters_of, weights

RELEASE = (0, 32, 0)
LARGE = "meta-llama/Llama-3.3-70B-Instruct"
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTRAL: dict[str, Any] = {
    **LLAMA,
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 32000,
}
# Elements of Llama-3.1-8B outside of the linear layers: two embeddings and 65 norms.
UNPACKED = 2 * 128256 * 4096 + 65 * 4096
LINEAR = 8_030_261_248 - UNPACKED


def counted(config: dict[str, Any], launch: LaunchSettings | None = None, **more: Any) -> Any:
    return weights(read_architecture(json.dumps(config)), launch or LaunchSettings(), RELEASE, **more)


def quantized(**config: object) -> dict[str, Any]:
    return {**LLAMA, "quantization_config": config}


def test_the_weights_that_vllm_logs_for_llama_3_1_8b() -> None:
    """`Model loading took 14.9889 GiB`: 16,060,522,496 bytes and a table of 131072 x 128 in bfloat16."""
    found = counted(LLAMA)
    assert found.parameters == 8_030_261_248
    assert found.per_gpu_bytes == 16_060_522_496 + 131072 * 128 * 2
    assert f"{found.per_gpu_bytes / 2**30:.2f}" == "14.99"
    assert found.exact


def test_mixtral_weighs_93_gb_and_no_expert_is_left_out() -> None:
    found = counted(MIXTRAL)
    assert found.parameters == 46_702_792_704
    assert round(found.total_bytes / 1e9) == 93


def test_beyond_the_key_value_heads_projections_are_repeated() -> None:
    eight, sixteen = (counted(LLAMA, LaunchSettings(tensor_parallel_size=n)) for n in (8, 16))
    assert sixteen.per_gpu_bytes > eight.per_gpu_bytes / 2


def test_expert_parallelism_deals_out_whole_experts() -> None:
    launch = LaunchSettings(tensor_parallel_size=4)
    apart = counted(MIXTRAL, replace(launch, expert_parallel=True))
    assert apart.per_gpu_bytes == counted(MIXTRAL, launch).per_gpu_bytes
    wide = replace(launch, expert_parallel=True, data_parallel_size=2)
    assert wide != launch
    assert counted(MIXTRAL, wide).per_gpu_bytes < apart.per_gpu_bytes


@pytest.mark.parametrize(
    ("config", "linear_bytes"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, LINEAR // 2 + LINEAR // 128 * 5 // 2),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, LINEAR + LINEAR // 128 * 3),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, LINEAR // 2 + LINEAR // 128 * 5 // 2),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, LINEAR + 7 * 32 * 4),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, LINEAR + LINEAR // 128**2 * 4),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, LINEAR // 2 + LINEAR // 16 + 7 * 32 * 8),
        (
            {
                "quant_method": "compressed-tensors",
                "ignore": ["lm_head"],
                "config_groups": {
                    "group_0": {
                        "targets": ["Linear"],
                        "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128},
                    }
                },
            },
            LINEAR // 2 + LINEAR // 128 * 2,
        ),
    ],
    ids=["gptq4", "gptq8", "awq", "fp8", "fp8-block", "nvfp4", "w4a16"],
)
def test_packed_checkpoints(config: dict[str, Any], linear_bytes: int) -> None:
    found = counted({**LLAMA, "quantization_config": config})
    assert found.parts[0].size_bytes == UNPACKED * 2 + linear_bytes
    assert found.parameters == 8_030_261_248


def test_modules_that_stay_unpacked() -> None:
    everywhere = quantized(quant_method="gptq", bits=4, modules_to_not_convert=["self_attn"])
    once = quantized(quant_method="gptq", bits=4, modules_to_not_convert=["model.layers.3.self_attn"])
    plain = counted(quantized(quant_method="gptq", bits=4)).per_gpu_bytes
    saved = counted(everywhere).per_gpu_bytes - plain
    assert counted(once).per_gpu_bytes - plain == saved // 32


def test_a_quantized_head_is_packed_too() -> None:
    apart = counted(quantized(quant_method="gptq", bits=4)).per_gpu_bytes
    assert counted(quantized(quant_method="gptq", bits=4, lm_head=True)).per_gpu_bytes < apart


def test_quantization_on_the_fly() -> None:
    assert counted(LLAMA, LaunchSettings(quantization="fp8")).per_gpu_bytes < 10 * 10**9
    unknown = counted(LLAMA, LaunchSettings(quantization="awq"))
    assert (unknown.exact, unknown.per_gpu_bytes) == (False, counted(LLAMA).per_gpu_bytes)


def test_lora_slots() -> None:
    """Of rank 16: 16 x (rows + columns) of the seven projections of 32 layers, in bfloat16."""
    sides = (4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3
    one = counted(LLAMA, LaunchSettings(enable_lora=True))
    two = counted(LLAMA, LaunchSettings(enable_lora=True, max_loras=2, max_lora_rank=32))
    assert one.per_gpu_bytes - counted(LLAMA).per_gpu_bytes == 16 * sides * 32 * 2
    assert two.per_gpu_bytes - counted(LLAMA).per_gpu_bytes == 4 * 16 * sides * 32 * 2


def test_a_draft_counts_where_its_config_is_known_and_is_said_where_not() -> None:
    launch = LaunchSettings(draft=DraftModel(method="draft_model", model="org/small", tokens=3))
    draft = read_architecture(json.dumps({**LLAMA, "num_hidden_layers": 2}))
    alone = counted(LLAMA)
    assert counted(LLAMA, launch, draft=draft).per_gpu_bytes - alone.per_gpu_bytes == parameters_of(draft) * 2
    assert not counted(LLAMA, launch).exact
    assert counted(LLAMA, LaunchSettings(draft=DraftModel(method="ngram", tokens=3))).exact


def test_offloaded_weights_leave_the_gpu() -> None:
    found = counted(LLAMA, LaunchSettings(cpu_offload_gb=4.0))
    assert counted(LLAMA).per_gpu_bytes - found.per_gpu_bytes == found.offloaded_bytes == 4 * 2**30
    assert counted(LLAMA, LaunchSettings(cpu_offload_gb=1000.0)).per_gpu_bytes == 0


def test_files_that_were_read_say_how_many_parameters_there_are() -> None:
    whole = WeightFile(name="a", format="safetensors", size_bytes=1, parameters=8_030_261_248, dtypes={})
    other = replace(whole, parameters=4_000_000_000)
    unread = replace(whole, parameters=None)
    assert counted(LLAMA, weight_files=(whole,)) == counted(LLAMA)
    assert counted(LLAMA, weight_files=(unread,)) == counted(LLAMA)
    half = counted(LLAMA, weight_files=(other,))
    assert (half.parameters, half.exact) == (4_000_000_000, False)
    assert half.per_gpu_bytes < counted(LLAMA).per_gpu_bytes


@pytest.mark.parametrize(("rows", "tp", "padded"), [(49155, 1, 49216), (128256, 1, 128256), (50257, 2, 25152)])
def test_vocabularies_are_padded(rows: int, tp: int, padded: int) -> None:
    assert vocabulary_rows(rows, tp) == padded


def test_kimi_linears_experts_are_widened_on_a_rank_since_0_27() -> None:
    """Of 1024 on 8 ranks each holds 128; since 0.27 vLLM makes 256 of them, so that 8 GPUs hold twice the experts."""
    kimi: dict[str, Any] = {
        "architectures": ["KimiLinearForCausalLM"],
        "model_type": "kimi_linear",
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 27,
        "num_attention_heads": 32,
        "moe_intermediate_size": 1024,
        "num_experts": 256,
        "num_experts_per_token": 8,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 163840,
        "linear_attn_config": {"kda_layers": [], "num_heads": 32, "head_dim": 128},
    }
    architecture = read_architecture(json.dumps(kimi))
    ranks = LaunchSettings(tensor_parallel_size=8)
    older, newer = (weights(architecture, ranks, release) for release in ((0, 26, 0), RELEASE))
    assert newer.per_gpu_bytes - older.per_gpu_bytes == 26 * 256 * 3 * 128 * 2304 * 2
    assert newer.parameters == older.parameters
    spread = replace(ranks, expert_parallel=True)
    assert (
        weights(architecture, spread, RELEASE).per_gpu_bytes == weights(architecture, spread, (0, 26, 0)).per_gpu_bytes
    )


def test_fp8_made_at_load_needs_room_for_16_bits_to_0_15() -> None:
    """Before layers were packed one by one, all of them stood there in 16 bits first."""
    asked = LaunchSettings(quantization="fp8", max_model_len=4096)
    whole = weights(model(LARGE), LaunchSettings(), RELEASE).per_gpu_bytes
    older, newer = (weights(model(LARGE), asked, release) for release in ((0, 12, 0), (0, 16, 0)))
    assert older.loading_bytes == (whole, whole) and newer.loading_bytes == (0, 0)
    assert older.per_gpu_bytes == newer.per_gpu_bytes < 0.53 * whole
    assert planned(LARGE, "H100 NVL", asked, (0, 12, 0)).verdict is Verdict.OOM_WEIGHTS
    assert planned(LARGE, "H100 NVL", asked, (0, 16, 0)).verdict is Verdict.FITS


def test_the_fragments_of_packing_between_loads_are_in_the_band() -> None:
    """Qwen2.5-72B on 140 GiB: it loads with 0.12 and not with 0.13 (vLLM issue 31273)."""
    asked = LaunchSettings(quantization="fp8", max_model_len=8192)
    name = "Qwen/Qwen2.5-72B-Instruct"
    assert planned(name, "H200", asked, (0, 12, 0)).verdict is Verdict.FITS
    between = planned(name, "H200", asked, (0, 13, 0))
    assert between.certainty is Certainty.CLOSE and between.pessimistic is Verdict.OOM_WEIGHTS
