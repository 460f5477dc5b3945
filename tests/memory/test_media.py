"""What flags for media do to the weights: compared with what vLLM 0.32 builds under the same flags."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.memory.building import planned
from vllm_doctor.launch import parse_line
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Architecture, LaunchSettings
from vllm_doctor.memory.kv_cache.specs import model_element_bytes
from vllm_doctor.memory.media import towers_under
from vllm_doctor.memory.plan import Verdict
from vllm_doctor.memory.settings import read_settings
from vllm_doctor.memory.weights import stage_bytes, weights

FIXTURE = Path(__file__).parents[2] / "fixtures" / "memory" / "built_by_vllm.json"
MODELS = json.loads(FIXTURE.read_text())["models"]
CONFIGS = {m["name"]: m["config"] for m in MODELS}
BACKEND = ("TransformersMultiModalForCausalLM", "TransformersMultiModalMoEForCausalLM")
RELEASE = (0, 32, 0)
NO_IMAGES = LaunchSettings(limit_mm_per_prompt={"image": 0})
NO_PICTURES = LaunchSettings(limit_mm_per_prompt={"image": 0, "video": 0})
TEXT_ONLY = LaunchSettings(language_model_only=True)
UNDIVIDED = LaunchSettings(tensor_parallel_size=2, mm_encoder_tp_mode="data")


def architecture_of(name: str) -> Architecture:
    return read_architecture(json.dumps(CONFIGS[name]))


def built(name: str, settings: LaunchSettings, release: tuple[int, int, int] = RELEASE) -> int:
    architecture = architecture_of(name)
    chosen = replace(architecture, towers=towers_under(architecture, settings, release))
    return stage_bytes(chosen, settings, None, model_element_bytes(architecture, settings))[0]


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        ("Qwen2_5_VLForConditionalGeneration", TEXT_ONLY, 145412407296),
        ("Qwen2_5_VLForConditionalGeneration", NO_IMAGES, 151578457600),
        ("Qwen2_5_VLForConditionalGeneration", NO_PICTURES, 145412407296),
        ("Qwen2_5_VLForConditionalGeneration", UNDIVIDED, 78873572864),
        ("Gemma3ForConditionalGeneration", NO_IMAGES, 5257316864),
        ("LlavaForConditionalGeneration", NO_IMAGES, 13476831232),
        ("LlavaForConditionalGeneration", UNDIVIDED, 7051912192),
        ("KimiVLForConditionalGeneration", NO_IMAGES, 31920223744),
        ("KimiVLForConditionalGeneration", UNDIVIDED, 16890591712),
        ("DotsOCRForCausalLM", NO_IMAGES, 3554176000),
        ("DotsOCRForCausalLM", UNDIVIDED, 4301358080),
        ("MiniCPMV-2.6", NO_IMAGES, 16198551008),
        ("MiniCPMV-2.6", UNDIVIDED, 8585891296),
        ("Glm4vForConditionalGeneration", UNDIVIDED, 11185751040),
        ("Step3VLForConditionalGeneration", UNDIVIDED, 321234547712),
    ],
)
def test_weights_under_flags_for_media_are_those_that_vllm_allocates(
    name: str, settings: LaunchSettings, size: int
) -> None:
    assert built(name, settings) == pytest.approx(size, rel=1e-5)


def through_transformers(model_type: str) -> Architecture:
    found = next(m["config"] for m in MODELS if m["name"] in BACKEND and m["config"]["model_type"] == model_type)
    return read_architecture(json.dumps(found))


@pytest.mark.parametrize(
    ("model_type", "settings", "size"),
    [
        ("llava", TEXT_ONLY, 13518790656),
        ("llava", NO_IMAGES, 13518790656),
        ("llava_onevision", TEXT_ONLY, 24142708736),
        ("llava_onevision", NO_IMAGES, 24938204224),
        ("qwen2_5_vl", NO_PICTURES, 145412407296),
        ("qwen2_5_vl", NO_IMAGES, 151578457600),
        ("internvl", TEXT_ONLY, 22922174464),
        ("idefics3", TEXT_ONLY, 13514579968),
        ("idefics2", NO_IMAGES, 15947882496),
        ("video_llava", TEXT_ONLY, 13518790656),
        ("hunyuan_vl", TEXT_ONLY, 15335972864),
        ("qwen2_audio", NO_PICTURES, 25384124416),
    ],
)
def test_through_transformers_what_stands_behind_an_encoder_is_built_all_the_same(
    model_type: str, settings: LaunchSettings, size: int
) -> None:
    """Built so by vLLM 0.32, told that the processor takes images (Qwen2.5-VL, LLaVA-OneVision: and videos)."""
    architecture = through_transformers(model_type)
    chosen = replace(architecture, towers=towers_under(architecture, settings, RELEASE))
    assert stage_bytes(chosen, settings, None, model_element_bytes(architecture, settings)) == (size,)


def test_emus_tower_is_built_whatever_the_flags_say() -> None:
    name = "Emu3ForConditionalGeneration"
    assert built(name, TEXT_ONLY) == built(name, NO_IMAGES) == built(name, LaunchSettings()) == 17525798526


def test_an_omni_model_keeps_its_towers_until_no_medium_is_left() -> None:
    name = "Qwen2_5OmniForConditionalGeneration"
    nothing = replace(NO_PICTURES, limit_mm_per_prompt={"image": 0, "video": 0, "audio": 0})
    assert built(name, NO_PICTURES) == built(name, LaunchSettings())
    assert built(name, nothing) == built(name, TEXT_ONLY) < built(name, NO_PICTURES)


def test_older_releases_build_all_towers_and_divide_them() -> None:
    for settings in (TEXT_ONLY, UNDIVIDED):
        plain = LaunchSettings(tensor_parallel_size=settings.tensor_parallel_size)
        assert built("Gemma3ForConditionalGeneration", settings, (0, 10, 0)) == built(
            "Gemma3ForConditionalGeneration", plain
        )


def test_a_plan_weighs_without_towers_but_counts_the_parameters_of_the_whole_model() -> None:
    architecture = architecture_of("Gemma3ForConditionalGeneration")
    whole, text = (weights(architecture, s, RELEASE) for s in (LaunchSettings(), TEXT_ONLY))
    assert text.parameters == whole.parameters
    assert text.per_gpu_bytes < whole.per_gpu_bytes


@pytest.mark.parametrize("flags", ["--mm-encoder-tp-mode data", "--mm-encoder-tp-mode=data"])
def test_the_flag_is_read(flags: str) -> None:
    found = read_settings(parse_line(f"vllm serve Qwen/Qwen2.5-VL-7B-Instruct {flags}"))
    assert found.mm_encoder_tp_mode == "data"


def test_the_largest_item_of_the_first_qwen_vls_is_a_video() -> None:
    """128,000 tokens hold seven images of 16,384: "profiled with 1 video items" (vLLM issue 18124: a share of 0.3)."""
    name = "Qwen/Qwen2.5-VL-3B-Instruct"
    whole, still, short = (
        planned(name, "A100 80GB", LaunchSettings(gpu_memory_utilization=0.3, **more), (0, 8, 3))
        for more in ({}, {"limit_mm_per_prompt": {"video": 0}}, {"max_model_len": 16384})
    )
    assert whole.verdict is not Verdict.FITS
    assert still.fits and short.fits
    assert whole.activation.low == still.activation.low
    assert whole.activation.typical > 2 * still.activation.typical
