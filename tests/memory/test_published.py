"""Parameters as their publishers count them: of architectures that only older releases serve, and of Inkling."""

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.drafting import draft_of
from vllm_doctor.memory.facts import Architecture, CacheKind, DraftModel, LaunchSettings
from vllm_doctor.memory.kv_cache import kv_layout
from vllm_doctor.memory.weights import parameters_of, weights

FIXTURES = Path(__file__).parents[2] / "fixtures" / "memory"
DRAFTS = json.loads((FIXTURES / "drafts_by_vllm.json").read_text())["drafts"]
MODELS = json.loads((FIXTURES / "built_by_vllm.json").read_text())["models"]
# https://huggingface.co/MiniMaxAI/MiniMax-Text-01/blob/main/config.json
MINIMAX: dict[str, Any] = {
    "architectures": ["MiniMaxText01ForCausalLM"],
    "model_type": "minimax_text_01",
    "torch_dtype": "bfloat16",
    "hidden_size": 6144,
    "intermediate_size": 9216,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_local_experts": 32,
    "num_experts_per_tok": 2,
    "vocab_size": 200064,
    "attn_type_list": ([0] * 7 + [1]) * 10,
    "max_position_embeddings": 10240000,
}
# https://huggingface.co/Snowflake/snowflake-arctic-instruct/blob/main/config.json
ARCTIC: dict[str, Any] = {
    "architectures": ["ArcticForCausalLM"],
    "model_type": "arctic",
    "torch_dtype": "bfloat16",
    "hidden_size": 7168,
    "intermediate_size": 4864,
    "num_hidden_layers": 35,
    "num_attention_heads": 56,
    "num_key_value_heads": 8,
    "num_local_experts": 128,
    "num_experts_per_tok": 2,
    "moe_layer_frequency": 1,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(("config", "billions"), [(MINIMAX, 456.1), (ARCTIC, 478.6)])
def test_parameters_are_the_published_ones(config: dict[str, Any], billions: float) -> None:
    assert parameters_of(read_architecture(json.dumps(config))) / 1e9 == pytest.approx(billions, abs=0.05)


def stored_bytes(architecture: Architecture) -> int:
    """Bytes of the tensors that a checkpoint in bfloat16 has."""
    layers = (t for kind in architecture.layers for t in architecture.kinds[kind].tensors)
    tensors = (*layers, *architecture.first, *architecture.last, *architecture.towers)
    return sum(t.parameters * (t.element_bytes or 2) for t in tensors)


def inkling() -> dict[str, Any]:
    """Inkling-Small, towers and MTP layers included."""
    return dict(next(d["target"] for d in DRAFTS if d["name"] == "InklingMTP"))


def large_inkling() -> dict[str, Any]:
    """Inkling, none of whose MTP layers has a window."""
    small, text = inkling(), next(m["config"] for m in MODELS if m["name"] == "Inkling-66-layers")
    wide = {"decoder_dmodel": text["hidden_size"]}
    towers = {key: {**small[key], **wide} for key in ("vision_config", "audio_config")}
    return {**small, **towers, "text_config": text, "mtp_config": {"num_nextn_predict_layers": 8}}


@pytest.mark.parametrize(
    ("config", "total"), [(inkling(), 531_912_898_740), (large_inkling(), 1_904_604_285_204)], ids=["Small", "Inkling"]
)
def test_inkling_weighs_what_its_index_says(config: dict[str, Any], total: int) -> None:
    """The `total_size` of thinkingmachines' model.safetensors.index.json, with the eight MTP layers."""
    text = json.dumps(config)
    model = read_architecture(text)
    draft = draft_of(DraftModel(method="mtp", tokens=8), model, text, None)
    assert draft is not None
    assert stored_bytes(model) + stored_bytes(draft) == total


def test_minimax_keeps_its_head_and_routers_in_fp32() -> None:
    found = read_architecture(json.dumps(MINIMAX))
    wide = 200064 * 6144 + 80 * 32 * 6144
    counted = weights(found, LaunchSettings(), (0, 20, 0)).parts[0].size_bytes
    assert counted == 2 * parameters_of(found) + 2 * wide


def test_one_layer_in_eight_of_minimax_has_a_cache_that_grows() -> None:
    layout = kv_layout(
        read_architecture(json.dumps(MINIMAX)), LaunchSettings(tensor_parallel_size=8), (0, 20, 0), None, 8192, 65536
    )
    assert layout.bytes_per_token_per_gpu == pytest.approx(10 * 2 * 128 * 2)
    assert sum(1 for g in layout.groups for s in g.specs if s.kind is CacheKind.STATE) == 7


def test_the_kinds_of_layers_may_have_names() -> None:
    named = {k: v for k, v in MINIMAX.items() if k != "attn_type_list"}
    types = ["linear_attention" if kind == 0 else "full_attention" for kind in MINIMAX["attn_type_list"]]
    assert read_architecture(json.dumps({**named, "layer_types": types})).kinds == (
        read_architecture(json.dumps(MINIMAX)).kinds
    )


def test_arctic_without_the_dense_mlp_beside_the_experts() -> None:
    whole, bare = (read_architecture(json.dumps({**ARCTIC, "use_residual": on})) for on in (True, False))
    assert parameters_of(whole) - parameters_of(bare) == 35 * (3 * 7168 * 7168 + 7168)
