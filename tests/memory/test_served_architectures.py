"""Every architecture in the registry of vLLM 0.32: read, read by its language model, or refused in one clear line."""

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_doctor import releases
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.drafting import KEEPER
from vllm_doctor.memory.families.drafts import DRAFTS
from vllm_doctor.memory.families.mtp import MTP_LAYERS
from vllm_doctor.memory.families.pooling import POOLED
from vllm_doctor.memory.families.registry import reader_of
from vllm_doctor.memory.families.towers import TOWERS

NOT_READ = Path(__file__).parents[2] / "fixtures" / "memory" / "not_read_0_32.txt"
BUILT = json.loads((NOT_READ.parent / "built_by_vllm.json").read_text())["models"]
RELEASE = releases.release("0.32.0")
SERVED = sorted(RELEASE.architectures if RELEASE is not None else ())
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
VISION = {"model_type": "siglip_vision_model", "hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304}


def is_read(name: str) -> bool:
    """Whether the name alone says how the layers are made, or which towers stand beside a known language model.

    Drafts are read beside their target only.
    """
    if name in DRAFTS or name in MTP_LAYERS or name == KEEPER:
        return True
    try:
        reader_of(name, Config({}))
    except ConfigError:
        return name in TOWERS or (name in POOLED and POOLED[name].inside in TOWERS)
    return True


def test_the_list_of_those_that_are_not_read_is_the_whole_of_them() -> None:
    assert [n for n in SERVED if not is_read(n)] == NOT_READ.read_text().split()


@pytest.mark.parametrize("name", NOT_READ.read_text().split())
def test_one_that_is_not_read_is_refused_though_its_numbers_look_like_llama(name: str) -> None:
    with pytest.raises(ConfigError, match="how its layers are made is not known"):
        read_architecture(json.dumps({**LLAMA, "architectures": [name], "model_type": "llama"}))


@pytest.mark.parametrize("name", ["Terratorch", "PrithviGeoSpatialMAE"])
def test_what_another_package_builds_is_refused_with_what_is_known_of_it(name: str) -> None:
    values = {
        "architectures": [name],
        "num_classes": 0,
        "pretrained_cfg": {"model": {"class_path": "terratorch.tasks"}},
    }
    with pytest.raises(ConfigError, match="the terratorch package makes them") as refused:
        read_architecture(json.dumps(values))
    assert "keeps no KV cache" in (refused.value.hint or "")


@pytest.mark.parametrize("name", NOT_READ.read_text().split())
def test_with_a_known_language_model_inside_the_rest_is_called_an_estimate(name: str) -> None:
    found = read_architecture(json.dumps({"architectures": [name], "text_config": LLAMA, "vision_config": VISION}))
    assert not found.exact
    assert any("tower" in doubt for doubt in found.approximations)


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize(
    "values", [{}, LLAMA, {"text_config": LLAMA, "vision_config": VISION}], ids=["no", "text", "towers"]
)
def test_no_architecture_ends_in_anything_but_a_plan_or_a_clear_line(name: str, values: dict[str, Any]) -> None:
    try:
        found = read_architecture(json.dumps({**values, "architectures": [name]}))
    except ConfigError as refused:
        assert str(refused).startswith("config.json: ")
    else:
        assert found.layers
        assert found.hidden_size > 0


@pytest.mark.parametrize("name", ["MiniCPMV4_7ForConditionalGeneration", "MiniCPMOcrForConditionalGeneration"])
def test_later_minicpm_keep_the_last_block_of_the_tower_that_the_first_drops_on_request(name: str) -> None:
    config = next(m["config"] for m in BUILT if m["name"] == "MiniCPMV4_6ForConditionalGeneration")
    dropping = {**config, "drop_vision_last_layer": True}

    def numbers(name: str, values: dict[str, Any]) -> int:
        found = read_architecture(json.dumps({**values, "architectures": [name]}))
        assert found.exact
        return sum(t.rows * max(1, t.columns) * t.copies for t in found.towers)

    assert numbers(name, dropping) == numbers("MiniCPMV4_6ForConditionalGeneration", config)
    assert numbers(name, dropping) > numbers("MiniCPMV4_6ForConditionalGeneration", dropping)
