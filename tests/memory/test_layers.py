"""The layers of every family, compared with what vLLM 0.32 builds from the same config."""

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Architecture, CacheKind, LaunchSettings
from vllm_doctor.memory.implementation import served
from vllm_doctor.memory.kv_cache.specs import model_element_bytes
from vllm_doctor.memory.parallelism import indivisible
from vllm_doctor.memory.stages import layers_of_stages
from vllm_doctor.memory.weights import quantization_of, stage_bytes

FIXTURE = Path(__file__).parents[2] / "fixtures" / "memory" / "built_by_vllm.json"
MODELS = json.loads(FIXTURE.read_text())["models"]
RELEASE = (0, 32, 0)
KINDS = {
    CacheKind.FULL: "FullAttention",
    CacheKind.SLIDING: "SlidingWindow",
    CacheKind.CHUNKED: "ChunkedLocalAttention",
    CacheKind.LATENT: "MLAAttention",
    CacheKind.HIDDEN: "HiddenStateCache",
    CacheKind.CROSS: "CrossAttention",
    CacheKind.STATE: "Mamba",
    CacheKind.SLIDING_LATENT: "SlidingWindowMLA",
    CacheKind.RING: "CircularBuffer",
}
# Every rank holds all heads of these.
WHOLE = (CacheKind.LATENT, CacheKind.SLIDING_LATENT, CacheKind.RING, CacheKind.HIDDEN)
# A norm of the embedding's stage, or a bias that vLLM leaves out: some kilobytes of billions.
TOLERANCE = 1e-4


def settings_of(launch: dict[str, Any]) -> LaunchSettings:
    return LaunchSettings(
        tensor_parallel_size=launch["tp"],
        pipeline_parallel_size=launch["pp"],
        expert_parallel=launch.get("ep", False),
    )


def layers_of(architecture: Architecture) -> tuple[tuple[int, ...], ...]:
    return (architecture.layers, architecture.side_layers)


def caches_of(architecture: Architecture, settings: LaunchSettings) -> list[list[Any]]:
    tp = settings.tensor_parallel_size
    counts: dict[tuple[Any, ...], int] = {}
    first = (layers[: layers_of_stages(len(layers), settings)[0]] for layers in layers_of(architecture))
    for kind in (kind for layers in first for kind in layers):
        for cache in architecture.kinds[kind].caches:
            heads = max(1, cache.kv_heads // (1 if cache.kind in WHOLE else tp))
            states = sum(-(-s.divided // tp) * s.fixed for s in cache.states)
            sizes = (0, 0) if cache.states else (heads, cache.head_size)
            key = (KINDS[cache.kind], *sizes, cache.window or 0, states)
            counts[key] = counts.get(key, 0) + 1
    return sorted([*key, number] for key, number in counts.items())


@pytest.mark.parametrize("model", MODELS, ids=[m["name"] for m in MODELS])
def test_weights_of_every_stage_are_those_that_vllm_allocates(model: dict[str, Any]) -> None:
    architecture = served(read_architecture(json.dumps(model["config"])), RELEASE)
    for launch in model["launches"]:
        settings = settings_of(launch)
        packing, _ = quantization_of(architecture, settings)
        ours = stage_bytes(architecture, settings, packing, model_element_bytes(architecture, settings))
        assert ours == pytest.approx(launch["stage_bytes"], rel=TOLERANCE)


@pytest.mark.parametrize("model", MODELS, ids=[m["name"] for m in MODELS])
def test_caches_of_the_layers_are_those_of_vllm(model: dict[str, Any]) -> None:
    architecture = read_architecture(json.dumps(model["config"]))
    for launch in model["launches"]:
        assert caches_of(architecture, settings_of(launch)) == sorted(launch["caches"])


@pytest.mark.parametrize("model", MODELS, ids=[m["name"] for m in MODELS])
def test_the_context_that_is_derived_is_that_of_vllm(model: dict[str, Any]) -> None:
    architecture = read_architecture(json.dumps(model["config"]))
    assert {architecture.native_max_model_len} == {launch["max_model_len"] for launch in model["launches"]}


@pytest.mark.parametrize("model", MODELS, ids=[m["name"] for m in MODELS])
def test_what_vllm_built_is_not_called_indivisible(model: dict[str, Any]) -> None:
    architecture = served(read_architecture(json.dumps(model["config"])), RELEASE)
    assert {indivisible(architecture, settings_of(launch)) for launch in model["launches"]} == {None}


@pytest.mark.parametrize(
    ("name", "changes", "size", "refusal"),
    [
        ("Nemotron-Nano-v2-12B", {"num_attention_heads": 48}, 16, "does not divide num_groups, then num_groups must"),
        (
            "Nemotron-Nano-v2-12B",
            {"num_attention_heads": 48, "num_key_value_heads": 3},
            3,
            "131072 is not divisible by 3",
        ),
        ("PanguProMoEV2ForCausalLM", {}, 8, "Number of KV heads 4 is less than TP size 8"),
        ("InklingForCausalLM", {}, 16, "sconv SWA cache supports tp_size <= num_kv_heads (8), got 16"),
        ("LlamaForCausalLM", {"intermediate_size": 11004}, 8, "an MLP of width 11004 cannot be dealt out to 8 ranks"),
    ],
)
def test_what_vllm_refuses_to_build_is_called_indivisible(
    name: str, changes: dict[str, Any], size: int, refusal: str
) -> None:
    """Each of these ends vLLM 0.32 in that assertion."""
    config = next(m["config"] for m in MODELS if m["name"] == name)
    architecture = read_architecture(json.dumps({**config, **changes}))
    assert refusal in (indivisible(architecture, LaunchSettings(tensor_parallel_size=size)) or "")
