"""The KV cache of a launch: vLLM's numbers by era of release, groups, stages, states, and the errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Architecture, CacheKind, Device, DraftModel, LaunchSettings, Release
from vllm_doctor.memory.kv_cache import KvLayout, kv_layout
from vllm_doctor.memory.kv_cache.groups import make_groups
from vllm_doctor.memory.kv_cache.specs import Placed, Spec

GIB = 2**30
BUILT = Path(__file__).parents[2] / "fixtures" / "memory" / "built_by_vllm.json"
LATEST = (0, 32, 0)
H100 = Device(name="NVIDIA H100 80GB HBM3", total_bytes=85017493504, capability=90)

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
GEMMA = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 1024,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
}
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "max_position_embeddings": 163840,
    "topk_method": "noaux_tc",
}
JAMBA = {"architectures": ["JambaForCausalLM"], "model_type": "jamba"}
MAMBA = {"architectures": ["FalconMambaForCausalLM"], "model_type": "falcon_mamba", "hidden_size": 4096}


def architecture(config: dict[str, Any]) -> Architecture:
    return read_architecture(json.dumps(config))


def layout(
    config: dict[str, Any],
    launch: LaunchSettings | None = None,
    release: Release = LATEST,
    device: Device | None = H100,
    length: int = 131072,
) -> KvLayout:
    return kv_layout(architecture(config), launch or LaunchSettings(), release, device, 8192, length)


def test_a_plain_model_has_one_group_and_its_bytes_per_token() -> None:
    found = layout(LLAMA)
    assert (found.bytes_per_token_per_gpu, found.block_size, len(found.groups)) == (131072, 16, 1)
    assert found.bytes_per_block == 131072 * 16


def test_the_numbers_of_a_start_that_was_seen_on_an_a100_with_0_31() -> None:
    """460,496 tokens of 56.21 GiB (a log of vLLM 0.31); the GiB are rounded, so the size is one that they round."""
    available = 460_496 * 131072
    found = layout(LLAMA, release=(0, 31, 0))
    assert round(available / GIB, 2) == 56.21
    assert found.capacity(available, 131072).tokens == 460_496


@pytest.mark.parametrize(
    ("release", "largest"),
    [((0, 28, 0), 16 * 1000), ((0, 29, 0), 16 * 999), (LATEST, 16 * 999)],
)
def test_the_null_block_counts_from_0_29_on(release: Release, largest: int) -> None:
    assert layout(LLAMA, release=release).largest_max_model_len(1000 * 16 * 131072, 131072) == largest


@pytest.mark.parametrize(
    ("release", "tokens"),
    [((0, 8, 0), 16_000), ((0, 20, 0), 16_000), ((0, 21, 0), int(1000 / 7 * 100)), (LATEST, int(1000 / 7 * 100))],
)
def test_tokens_are_counted_by_concurrency_from_0_21_on(release: Release, tokens: int) -> None:
    """At a length of 100 a request takes 7 blocks, of which the last is not full."""
    assert layout(LLAMA, release=release).capacity(1000 * 16 * 131072, 100).tokens == tokens


@pytest.mark.parametrize(("tp", "bytes_per_token"), [(1, 131072), (2, 65536), (8, 16384), (16, 16384), (32, 16384)])
def test_beyond_the_key_value_heads_the_cache_is_repeated(tp: int, bytes_per_token: int) -> None:
    assert layout(LLAMA, LaunchSettings(tensor_parallel_size=tp)).bytes_per_token_per_gpu == bytes_per_token


@pytest.mark.parametrize(
    ("dtype", "bytes_per_token"),
    [
        ("auto", 131072),
        ("bfloat16", 131072),
        ("fp8", 65536),
        ("fp8_e5m2", 65536),
        ("int8_per_token_head", 32 * 8 * (256 + 8)),
        ("int4_per_token_head", 32 * 8 * (128 + 8)),
        ("nvfp4", 32 * 8 * 2 * (64 + 8)),
    ],
)
def test_formats_of_the_cache(dtype: str, bytes_per_token: int) -> None:
    assert layout(LLAMA, LaunchSettings(kv_cache_dtype=dtype)).bytes_per_token_per_gpu == bytes_per_token


def test_a_format_that_is_not_known_is_refused() -> None:
    with pytest.raises(DoctorError, match="kv-cache-dtype fp3"):
        layout(LLAMA, LaunchSettings(kv_cache_dtype="fp3"))


def test_the_checkpoint_may_ask_for_fp8() -> None:
    scheme = {"quant_method": "compressed-tensors", "kv_cache_scheme": {"type": "float", "num_bits": 8}}
    config = {**LLAMA, "quantization_config": scheme}
    assert layout(config).bytes_per_token_per_gpu == 65536
    assert layout(config, LaunchSettings(kv_cache_dtype="bfloat16")).bytes_per_token_per_gpu == 131072


def test_a_latent_is_the_same_on_every_rank_and_fp8_takes_flashmla_on_hopper() -> None:
    for tp in (1, 8):
        assert layout(DEEPSEEK, LaunchSettings(tensor_parallel_size=tp)).bytes_per_token_per_gpu == 61 * 576 * 2
    assert layout(DEEPSEEK, LaunchSettings(kv_cache_dtype="fp8")).block_size == 64
    l4 = Device(name="NVIDIA L4", total_bytes=24 * GIB, capability=89)
    assert layout(DEEPSEEK, LaunchSettings(kv_cache_dtype="fp8"), device=l4).block_size == 16


def test_sliding_layers_stop_growing_and_count_as_full_without_the_manager() -> None:
    hybrid = layout(GEMMA)
    assert [g.spec.kind for g in hybrid.groups].count(CacheKind.FULL) == 1
    assert len(hybrid.groups) == 7
    off = layout(GEMMA, LaunchSettings(disable_hybrid_kv_cache_manager=True))
    assert len(off.groups) == 1
    assert off.needed_bytes(131072) == 34 * 16 * 2 * 4 * 256 * 2 * (131072 // 16)
    assert hybrid.needed_bytes(131072) < off.needed_bytes(131072) / 2


def test_in_flight_tokens_hold_two_batches_from_0_26_on() -> None:
    assert layout(GEMMA, release=(0, 25, 0)).in_flight_tokens == 8192
    assert layout(GEMMA, release=(0, 26, 0)).in_flight_tokens == 16384
    assert layout(GEMMA, LaunchSettings(pipeline_parallel_size=2)).in_flight_tokens == 3 * 8192
    assert layout(GEMMA, LaunchSettings(async_scheduling=False)).in_flight_tokens == 8192


@pytest.mark.parametrize(("release", "groups"), [((0, 11, 0), 3), ((0, 17, 0), 3), ((0, 18, 0), 2)])
def test_close_buckets_share_the_larger_size(release: Release, groups: int) -> None:
    """12 sliding and 17 full layers: 1.4 times as many, which is close from 0.18 on."""
    sliding = Spec(CacheKind.SLIDING, 16, 1024, window=128)
    full = Spec(CacheKind.FULL, 16, 1024)
    layers = [Placed(sliding, 0)] * 12 + [Placed(full, 0)] * 17
    assert len(make_groups(layers, 1, release, hybrid_manager=True)) == groups


def test_pages_of_two_sizes_are_made_equal() -> None:
    small, large = Spec(CacheKind.SLIDING, 16, 1024, window=128), Spec(CacheKind.FULL, 16, 2048)
    groups = make_groups([Placed(small, 0), Placed(large, 0)], 1, LATEST, hybrid_manager=True)
    assert {(g.spec.kind, g.spec.block, g.spec.page) for g in groups} == {
        (CacheKind.SLIDING, 32, 2048),
        (CacheKind.FULL, 16, 2048),
    }


def test_the_stage_with_the_most_layers_decides() -> None:
    found = layout(DEEPSEEK, LaunchSettings(pipeline_parallel_size=2))
    assert found.stage_block_bytes == (31 * 16 * 1152, 30 * 16 * 1152)
    assert found.blocks(31 * 16 * 1152 * 10) == 10


def test_an_attention_block_grows_until_it_holds_a_state() -> None:
    found = layout(JAMBA, length=262144)
    assert found.is_hybrid
    assert found.block_size > 16
    assert len({g.spec.page for g in found.groups}) == 1


def test_a_pure_state_model_holds_sequences_not_tokens() -> None:
    found = layout(MAMBA, length=2048)
    assert found.bytes_per_token_per_gpu == 0
    assert found.largest_max_num_seqs(found.bytes_per_block * 10) == 10
    assert found.needed_bytes(2048) == found.bytes_per_block


QWEN3_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"],
    "model_type": "qwen3_next",
    "torch_dtype": "bfloat16",
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
}


@pytest.mark.parametrize(
    ("release", "launch", "capability", "block", "states"),
    [
        ((0, 32, 0), LaunchSettings(), 90, 544, 2),
        ((0, 33, 0), LaunchSettings(), 90, 576, 3),
        ((0, 33, 0), LaunchSettings(), 100, 576, 3),
        ((0, 33, 0), LaunchSettings(), 89, 544, 2),
        ((0, 33, 0), LaunchSettings(gdn_prefill_backend="triton"), 90, 544, 2),
        ((0, 33, 0), LaunchSettings(prefix_caching=False), 90, 544, 1),
    ],
)
def test_delta_nets_export_checkpoints_from_0_33_on(
    release: Release, launch: LaunchSettings, capability: int, block: int, states: int
) -> None:
    device = Device(name="H100", total_bytes=80 * GIB, capability=capability)
    found = kv_layout(architecture(QWEN3_NEXT), launch, release, device, 8192, 262144)
    assert found.block_size == block
    assert {g.spec.states for g in found.groups if g.spec.kind is CacheKind.STATE} == {states}


@pytest.mark.parametrize(
    ("ranks", "length", "blocks", "needed", "concurrency"),
    [
        (1, 8192, 640, 9697230848, 2.2145328719723185),
        (1, 45000, 640, 14730395648, 1.457858769931663),
        (2, 8192, 1280, 4848615424, 4.429065743944637),
        (2, 45000, 1280, 7365197824, 2.915717539863326),
    ],
)
def test_an_encoder_that_hears_several_frames_a_token_has_blocks_of_its_own(
    ranks: int, length: int, blocks: int, needed: int, concurrency: float
) -> None:
    """vLLM 0.32's own groups of Voxtral Realtime for 20 GiB, on a CPU: blocks of 32 tokens, no async scheduling."""
    lines = json.loads(BUILT.read_text())["models"]
    config = next(m["config"] for m in lines if m["name"] == "VoxtralRealtime-full")
    launch = LaunchSettings(tensor_parallel_size=ranks, block_size=32, async_scheduling=False)
    found = layout(config, launch, length=length)
    assert (found.capacity(20 * GIB, length).blocks, found.needed_bytes(length)) == (blocks, needed)
    assert found.capacity(20 * GIB, length).max_concurrency == pytest.approx(concurrency, rel=1e-12)


def test_drafts_take_states_of_their_own() -> None:
    with_draft = LaunchSettings(draft=DraftModel(method="ngram", tokens=3))
    assert layout(MAMBA, with_draft, length=2048).needed_bytes(2048) == 4 * layout(MAMBA, length=2048).bytes_per_block


def test_the_refusals_are_in_the_words_of_the_release() -> None:
    new, old = layout(LLAMA), layout(LLAMA, release=(0, 20, 0))
    assert new.error(0, 4096) is not None
    assert str(new.error(0, 4096)).startswith("No available memory for the cache blocks.")
    said = str(new.error(GIB, 131072))
    assert "the model's max seq len (131072), (16.0 GiB KV cache is needed" in said
    assert "the estimated maximum model length is 8176. " in said
    assert "models's max seq len" in str(old.error(GIB, 131072))
    assert new.error(20 * GIB, 131072) is None


def test_an_override_decides_the_blocks() -> None:
    found = layout(LLAMA, LaunchSettings(num_gpu_blocks_override=100))
    assert found.capacity(40 * GIB, 1600).blocks == 100
    assert found.largest_max_model_len(1, 131072) == 99 * 16


@given(
    available=st.integers(min_value=-GIB, max_value=200 * GIB),
    length=st.integers(min_value=1, max_value=131072),
    config=st.sampled_from((LLAMA, GEMMA, DEEPSEEK, JAMBA)),
    release=st.sampled_from(((0, 8, 5), (0, 11, 0), (0, 13, 0), (0, 20, 2), (0, 27, 0), LATEST)),
)
@settings(max_examples=150, deadline=500)
def test_the_largest_length_starts_and_the_next_does_not(
    available: int, length: int, config: dict[str, Any], release: Release
) -> None:
    found = layout(config, release=release)
    largest = found.largest_max_model_len(available, length)
    assert 0 <= largest <= length
    if largest:
        assert found.error(available, largest) is None
        # To 0.13 vLLM compared the layers' own needs, those of windows too, without what the groups make of them.
        assert found.capacity(available, largest).max_concurrency >= (1 if release >= (0, 14, 0) else 5 / 34)
    if largest < length:
        assert found.error(available, largest + 1) is not None
