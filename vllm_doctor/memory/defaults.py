"""What this release of vLLM takes on this GPU where the launch says nothing (vllm/engine/arg_utils.py)."""

from enum import Enum

from vllm_doctor.facts.base import Facts
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release

GIB = 2**30

# The newest release whose sources the rules were read from; where the release is not known, this one is meant. Of 0.33
# the engine was read (batches, layout and capacity of the cache, the hybrids' blocks), the models' layers are 0.32's.
NEWEST: Release = (0, 33, 0)

# vllm/engine/arg_utils.py `_is_v1_supported_oracle`: V1 is the default from 0.8.0, and V0 is gone from 0.11.0.
FIRST_V1: Release = (0, 8, 0)

# vllm/config/cache.py: the default of gpu_memory_utilization is 0.9 to 0.19.1 and 0.92 from 0.20.0.
UTILIZATION_RAISED: Release = (0, 20, 0)

# The largest captured batch (vllm/config/compilation.py `max_cudagraph_capture_size`).
_LARGEST_GRAPH = 512


class Engine(str, Enum):
    """Which generation of the engine and its model runner will profile: they allocate differently."""

    V0 = "v0"
    V1 = "v1"
    V2_RUNNER = "v2-runner"


class Defaults(Facts, frozen=True):
    """The values that a launch really runs with.

    `graph_sizes` counts the captured batch sizes, 0 where none are; `graphs_in_budget`: their estimated memory is taken
    from the budget before the KV cache is sized (0.20 and later).
    """

    engine: Engine
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    gpu_memory_utilization: float
    chunked_prefill: bool
    graph_sizes: int
    largest_graph: int
    graphs_in_budget: bool


def resolve(architecture: Architecture, settings: LaunchSettings, device: Device, release: Release | None) -> Defaults:
    """The launch's own values, and vLLM's defaults for the rest; `auto` starts from the model's own length."""
    version = release or NEWEST
    engine = _engine(version)
    length = max_model_len(architecture, settings)
    chunked = _chunked_prefill(settings, version, length, architecture)
    tokens, sequences = _batch(settings, device, version, engine, length, chunked)
    sizes, largest = _graphs(settings, version, sequences, tokens, _largest_graph(architecture, device, version))
    return Defaults(
        engine=engine,
        max_model_len=length,
        max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        gpu_memory_utilization=utilization(settings, version),
        chunked_prefill=chunked,
        graph_sizes=sizes,
        largest_graph=largest,
        graphs_in_budget=_graphs_in_budget(settings, version),
    )


def max_model_len(architecture: Architecture, settings: LaunchSettings) -> int:
    """The asked length, else the model's own; a config without one gets 2048 (`_get_and_verify_max_len`)."""
    native = architecture.native_max_model_len or 2048
    asked = settings.max_model_len
    return native if asked is None or asked <= 0 else asked


def utilization(settings: LaunchSettings, release: Release | None) -> float:
    """The share of the card that vLLM takes: 0.9 to 0.19.1, 0.92 from 0.20.0."""
    given = settings.gpu_memory_utilization
    if given is not None:
        return given
    return 0.92 if (release or NEWEST) >= UTILIZATION_RAISED else 0.9


def _engine(release: Release) -> Engine:
    """V0 to 0.7, V1 from 0.8; model runner V2 is the default from 0.29 (vllm/v1/worker/gpu_worker.py)."""
    if release < FIRST_V1:
        return Engine.V0
    return Engine.V2_RUNNER if release >= (0, 29, 0) else Engine.V1


def _chunked_prefill(settings: LaunchSettings, release: Release, length: int, architecture: Architecture) -> bool:
    """V1: on. V0: by default for max_model_len > 32768 only, never for multimodal models (arg_utils.py, 0.6.6)."""
    if settings.chunked_prefill is not None:
        return settings.chunked_prefill
    if release >= FIRST_V1:
        return not architecture.is_encoder_decoder and not architecture.keeps_nothing
    return release >= (0, 5, 0) and length > 32768 and not architecture.is_multimodal


def _batch(
    settings: LaunchSettings,
    device: Device,
    release: Release,
    engine: Engine,
    length: int,
    chunked: bool,
) -> tuple[int, int]:
    """max_num_batched_tokens and max_num_seqs (`get_batch_defaults` and what follows it)."""
    tokens, sequences = (_old_batch if engine is Engine.V0 else _new_batch)(device, release, length, chunked)
    if settings.performance_mode == "throughput":
        tokens, sequences = tokens * 2, sequences * 2
    sequences = settings.max_num_seqs or sequences
    if settings.max_num_batched_tokens is not None:
        return settings.max_num_batched_tokens, max(1, min(sequences, settings.max_num_batched_tokens))
    if engine is not Engine.V0:
        if not chunked:
            tokens = max(tokens, length)
        tokens = min(tokens, sequences * length)
    return max(tokens, 1), max(1, min(sequences, tokens))


def _new_batch(device: Device, release: Release, length: int, chunked: bool) -> tuple[int, int]:  # noqa: ARG001
    """V1: by the GPU's memory; A100 counts as small from 0.9 on whatever its memory (issue 15570 of vLLM)."""
    if release >= (0, 28, 0) and device.total_bytes >= 160 * GIB:
        return 16384, 1024
    is_a100 = "a100" in device.name.lower() and release >= (0, 9, 0)
    # GB10 has much memory, and the arithmetic of a small card (EngineArgs.get_batch_defaults of 0.33).
    is_gb10 = device.capability == 121 and release >= (0, 33, 0)
    if device.total_bytes >= 70 * GIB and not is_a100 and not is_gb10:
        return 8192, 1024
    return 2048, 256


def _old_batch(device: Device, release: Release, length: int, chunked: bool) -> tuple[int, int]:  # noqa: ARG001
    """V0: a whole prompt is one batch unless prefill is chunked (512 tokens to 0.6.5, 2048 from 0.6.6)."""
    if chunked:
        return (2048 if release >= (0, 6, 6) else 512), 256
    return max(length, 2048), 256


def _graphs(settings: LaunchSettings, release: Release, sequences: int, tokens: int, cap: int) -> tuple[int, int]:
    """How many batch sizes are captured, and the largest (vllm/config/vllm.py `_set_cudagraph_sizes`)."""
    if settings.enforce_eager or settings.cudagraph_mode in ("NONE", "none") or settings.compilation_level == 0:
        return 0, 0
    if settings.cudagraph_sizes is not None:
        sizes = tuple(s for s in settings.cudagraph_sizes if s <= tokens)
        return len(sizes), max(sizes, default=0)
    if release < FIRST_V1:
        return (35 if sequences >= 256 else 3 + sequences // 8), min(sequences, 256)
    if release < (0, 12, 0):
        return 67, _LARGEST_GRAPH
    # gpt-oss names its largest size itself, whatever the sequences.
    largest = max(1, min(cap if cap > _LARGEST_GRAPH else sequences * 2, cap, tokens))
    below = len([s for s in (1, 2, 4) if s <= largest])
    return below + min(largest, 255) // 8 + max(0, (largest - 240) // 16), largest


def _largest_graph(architecture: Architecture, device: Device, release: Release) -> int:
    """512 sequences; 1024 on data-centre Blackwell, and for gpt-oss (model_executor/models/config.py, 0.11)."""
    blackwell = release >= (0, 29, 0) and device.capability in (100, 103)
    gpt_oss = release >= (0, 11, 0) and architecture.model_type == "gpt_oss"
    return 1024 if blackwell or gpt_oss else _LARGEST_GRAPH


def _graphs_in_budget(settings: LaunchSettings, release: Release) -> bool:
    """VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS: exists from 0.18, on from 0.20 (vllm/envs.py)."""
    given = settings.environment.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS")
    if release < (0, 18, 0):
        return False
    if given in ("0", "1"):
        return given == "1"
    return release >= UTILIZATION_RAISED
