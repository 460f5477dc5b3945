"""Caches that are packed into blocks with others, compared with the blocks that vLLM 0.32 makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory import boards
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.drafting import draft_of
from vllm_doctor.memory.facts import Device, DraftModel, LaunchSettings, Release
from vllm_doctor.memory.kv_cache import KvLayout, kv_layout

FIXTURE = Path(__file__).parents[2] / "fixtures" / "memory" / "groups_by_vllm.json"
MODELS = json.loads(FIXTURE.read_text())["models"]
CASES = [(model["config"], launch) for model in MODELS for launch in model["launches"]]
NAMES = [f"{model['name']}-{i}" for model in MODELS for i in range(len(model["launches"]))]
RELEASE = (0, 32, 0)
GIB = 2**30
H100 = boards.device("H100")


def settings_of(launch: dict[str, Any]) -> LaunchSettings:
    draft = DraftModel(method=launch["method"], tokens=launch["tokens"]) if "method" in launch else None
    return LaunchSettings(
        tensor_parallel_size=launch["tp"],
        pipeline_parallel_size=launch["pp"],
        block_size=launch.get("block_size"),
        draft=draft,
    )


def layout(
    config: dict[str, Any],
    settings: LaunchSettings,
    release: Release = RELEASE,
    device: Device = H100,
    batched: int = 8192,
) -> KvLayout:
    text = json.dumps(config)
    architecture = read_architecture(text)
    draft = draft_of(settings.draft, architecture, text, None)
    return kv_layout(architecture, settings, release, device, batched, 0, draft)


@pytest.mark.parametrize(("config", "launch"), CASES, ids=NAMES)
def test_blocks_tokens_and_concurrency_are_those_of_vllm(config: dict[str, Any], launch: dict[str, Any]) -> None:
    device = boards.device("B200" if launch.get("capability") == 10 else "H100")
    found = layout(config, settings_of(launch), device=device, batched=launch["max_num_batched_tokens"])
    capacity = found.capacity(int(launch["gib"] * GIB), launch["max_model_len"])
    assert (found.in_flight_tokens, found.block_size) == (launch["in_flight"], launch["block"])
    assert (capacity.blocks, capacity.tokens) == (launch["blocks"], launch["capacity"])
    assert capacity.max_concurrency == pytest.approx(launch["concurrency"])


def flash() -> dict[str, Any]:
    found: dict[str, Any] = next(m["config"] for m in MODELS if m["name"] == "DeepseekV4ForCausalLM")
    return found


def test_the_refusal_is_the_one_that_was_seen_with_0_22() -> None:
    """vLLM issue 44376: two GH200, 5.44 GiB left, 30000 tokens; the GiB are rounded, so the size is one of them."""
    found = layout(flash(), LaunchSettings(tensor_parallel_size=2), release=(0, 22, 0), batched=16384)
    error = found.error(found.needed_bytes(13528), 30000)
    assert error is not None
    assert "(30000), (6.66 GiB KV cache is needed" in error
    assert "memory (5.44 GiB). Based on the available memory, the estimated maximum model length is 13528." in error


@pytest.mark.parametrize(
    ("release", "size"), [((0, 22, 1), 1_051_776), ((0, 26, 0), 1_039_680), ((0, 28, 0), 1_002_240)]
)
def test_older_releases_leave_more_of_a_block_empty(release: Release, size: int) -> None:
    assert layout(flash(), LaunchSettings(), release=release).bytes_per_block == size


@pytest.mark.parametrize(("release", "size"), [((0, 32, 0), 135_168), ((0, 33, 0), 43 * 3168)])
def test_from_0_33_on_a_block_on_blackwell_holds_whole_numbers_of_both_sizes(release: Release, size: int) -> None:
    """3168 is the least that 528 and 288 bytes divide (0.33 deepseek_v41/attention.py)."""
    newest: dict[str, Any] = next(m["config"] for m in MODELS if m["name"] == "DeepseekV41ForCausalLM")
    assert layout(newest, LaunchSettings(), release, boards.device("B200")).bytes_per_block == size


def test_another_format_than_fp8_is_refused_in_the_words_of_vllm() -> None:
    with pytest.raises(DoctorError, match="only supports fp8 kv-cache, got bfloat16"):
        layout(flash(), LaunchSettings(kv_cache_dtype="bfloat16"))


def test_keys_of_fp4_make_the_indexers_pages_half_as_large() -> None:
    """64 keys of 68 bytes in a page, a multiple of 576: 4608, where FP8 has 8640."""
    narrow = layout(flash(), LaunchSettings(indexer_fp4=True))
    assert layout(flash(), LaunchSettings()).bytes_per_block - narrow.bytes_per_block == 21 * (8640 - 4608)


def test_without_the_manager_of_hybrids_the_layout_is_not_known() -> None:
    with pytest.raises(DoctorError, match="--disable-hybrid-kv-cache-manager"):
        layout(flash(), LaunchSettings(disable_hybrid_kv_cache_manager=True))
