"""vLLM's defaults by release and GPU, as its own code takes them."""

import pytest

from vllm_doctor.memory.defaults import Engine, resolve
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings

GIB = 2**30
H100 = Device(name="NVIDIA H100 80GB HBM3", total_bytes=79 * GIB, capability=90)
H200 = Device(name="NVIDIA H200", total_bytes=139 * GIB, capability=90)
B200 = Device(name="NVIDIA B200", total_bytes=178 * GIB, capability=100)
GB10 = Device(name="NVIDIA GB10", total_bytes=119 * GIB, capability=121)
A100 = Device(name="NVIDIA A100-SXM4-80GB", total_bytes=79 * GIB, capability=80)
L4 = Device(name="NVIDIA L4", total_bytes=22 * GIB, capability=89)


def architecture(**changes: object) -> Architecture:
    values: dict[str, object] = {
        "name": "LlamaForCausalLM", "model_type": "llama", "dtype": "bfloat16", "hidden_size": 4096,
        "vocabulary_size": 128256, "layers": (), "kinds": (), "first": (), "last": (), "native_max_model_len": 131072,
    }  # fmt: skip
    return Architecture(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "release", "tokens", "sequences"),
    [
        (H100, (0, 32, 0), 8192, 1024),
        (A100, (0, 32, 0), 2048, 256),
        (A100, (0, 8, 5), 8192, 1024),
        (L4, (0, 32, 0), 2048, 256),
        (B200, (0, 32, 0), 16384, 1024),
        (B200, (0, 27, 0), 8192, 1024),
        (H200, (0, 32, 0), 8192, 1024),
        (GB10, (0, 32, 0), 8192, 1024),
        (GB10, (0, 33, 0), 2048, 256),
    ],
)
def test_batches_go_by_the_memory_of_the_gpu(device, release, tokens, sequences):  # type: ignore[no-untyped-def]
    found = resolve(architecture(), LaunchSettings(), device, release)
    assert (found.max_num_batched_tokens, found.max_num_seqs) == (tokens, sequences)


def test_the_old_engine_takes_a_whole_prompt_unless_prefill_is_chunked() -> None:
    short = resolve(architecture(native_max_model_len=32768), LaunchSettings(), H100, (0, 6, 3))
    long = resolve(architecture(), LaunchSettings(), H100, (0, 6, 6))
    assert (short.engine, short.max_num_batched_tokens, short.max_num_seqs) == (Engine.V0, 32768, 256)
    assert long.max_num_batched_tokens == 2048


@pytest.mark.parametrize(("release", "share"), [((0, 19, 1), 0.9), ((0, 20, 0), 0.92), (None, 0.92)])
def test_utilization_was_raised(release, share) -> None:  # type: ignore[no-untyped-def]
    assert resolve(architecture(), LaunchSettings(), H100, release).gpu_memory_utilization == share


def test_what_the_launch_says_counts() -> None:
    settings = LaunchSettings(
        max_num_seqs=16, max_num_batched_tokens=4096, gpu_memory_utilization=0.5, max_model_len=512
    )
    found = resolve(architecture(), settings, H100, (0, 32, 0))
    assert (found.max_num_seqs, found.max_num_batched_tokens) == (16, 4096)
    assert (found.gpu_memory_utilization, found.max_model_len) == (0.5, 512)


def test_a_batch_holds_no_more_than_all_sequences_at_their_longest() -> None:
    found = resolve(architecture(), LaunchSettings(max_num_seqs=2, max_model_len=100), H100, (0, 32, 0))
    assert (found.max_num_batched_tokens, found.max_num_seqs) == (200, 2)


@pytest.mark.parametrize(
    ("settings", "sizes", "largest"),
    [
        (LaunchSettings(), 51, 512),
        (LaunchSettings(max_num_seqs=16), 7, 32),
        (LaunchSettings(enforce_eager=True), 0, 0),
        (LaunchSettings(cudagraph_sizes=(1, 2, 4)), 3, 4),
    ],
)
def test_captured_sizes(settings, sizes, largest) -> None:  # type: ignore[no-untyped-def]
    found = resolve(architecture(), settings, H100, (0, 32, 0))
    assert (found.graph_sizes, found.largest_graph) == (sizes, largest)


def test_gpt_oss_captures_twice_as_far() -> None:
    assert resolve(architecture(model_type="gpt_oss"), LaunchSettings(), H100, (0, 32, 0)).graph_sizes == 83


def test_graphs_are_in_the_budget_from_0_20() -> None:
    assert not resolve(architecture(), LaunchSettings(), H100, (0, 19, 0)).graphs_in_budget
    assert resolve(architecture(), LaunchSettings(), H100, (0, 20, 0)).graphs_in_budget
    told = LaunchSettings(environment={"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0"})
    assert not resolve(architecture(), told, H100, (0, 20, 0)).graphs_in_budget
