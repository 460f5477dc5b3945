"""Llama 3.2 Vision: its parameters, what vLLM logged of it, and the images that V0 profiles."""

import json

import pytest

from tests.memory.building import GIB, model, planned
from vllm_doctor.memory import catalogue
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.config_values import ConfigError
from vllm_doctor.memory.facts import LaunchSettings
from vllm_doctor.memory.plan import Verdict
from vllm_doctor.memory.weights import parameters_of, weights

NAME = "meta-llama/Llama-3.2-11B-Vision-Instruct"


def test_its_parameters_and_the_load_that_vllm_logged() -> None:
    """`Loading model weights took 19.9073 GB` (vLLM issue 10569, 0.6.3)."""
    assert parameters_of(model(NAME)) == 10_670_220_835
    assert weights(model(NAME), LaunchSettings(), (0, 6, 3)).per_gpu_bytes / GIB == pytest.approx(19.9073, rel=1e-4)


def test_every_layer_has_a_place_in_the_cache() -> None:
    found = model(NAME)
    assert len(found.layers) == 40 and sum(found.layers) == 8
    assert planned(NAME, "H100", LaunchSettings(max_num_seqs=8), (0, 6, 3)).bytes_per_token == 40 * 2 * 8 * 128 * 2


def test_the_profile_run_of_v0_sees_an_image_a_sequence() -> None:
    """36.63 GiB of activations, 14.65 GiB left for the cache (vLLM pull request 12126, 0.7.0)."""
    launch = LaunchSettings(max_model_len=65536, max_num_seqs=128, enforce_eager=True)
    found = planned(NAME, "H100", launch, (0, 7, 0))
    assert found.activation.typical / GIB == pytest.approx(36.63, abs=0.2)
    assert found.kv_cache.low < 14.65 * GIB < found.kv_cache.high
    assert planned(NAME, "L20", release=(0, 6, 3)).verdict is Verdict.OOM_ACTIVATION


def test_a_config_without_its_encoder_is_no_model() -> None:
    entry = catalogue.find(NAME)
    assert entry is not None
    config = {k: v for k, v in json.loads(entry.config_json).items() if k != "vision_config"}
    with pytest.raises(ConfigError):
        read_architecture(json.dumps(config))
