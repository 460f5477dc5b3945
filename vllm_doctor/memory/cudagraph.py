"""The memory of captured CUDA graphs: what the capture takes, and what the release takes from the budget for it."""

from vllm_doctor.memory import coefficients
from vllm_doctor.memory.defaults import NEWEST, Defaults, Engine
from vllm_doctor.memory.estimate import GIB, Estimate, banded, exactly
from vllm_doctor.memory.facts import Architecture, LaunchSettings, Release

# The capture of the rows that the constants were fitted on: 51 sizes.
_FITTED_SIZES = 51

# Logged start-ups lie between 0.2 and 0.7 GiB for dense models of 0.5 to 14 B, 1 to 4 GiB with experts or TP 4 to 8;
# the estimate of 0.20 and later differs from the capture by up to half of it.
_BELOW, _ABOVE = 0.6, 0.6
_FLOOR_BYTES = GIB // 10

# V0 captures outside of a shared pool per rank: 2.4 GiB were seen for 60 layers on 4 ranks (vLLM issue 7553, 0.5.4).
_V0_ABOVE = 1.5

# V1 captured 67 sizes piece by piece to 0.11.
_OLDER_ABOVE = 1.0


def captured(architecture: Architecture, defaults: Defaults, release: Release | None = None) -> Estimate:
    """What the capture really takes; 0 where none is made. The band is wider before the measured generation (0.12)."""
    if not defaults.graph_sizes:
        return exactly(0)
    size = _size(
        architecture,
        defaults,
        coefficients.GRAPH_BYTES,
        coefficients.GRAPH_LAYER_BYTES,
        coefficients.GRAPH_EXPERTS_BYTES,
    )
    older = _OLDER_ABOVE if (release or NEWEST) < (0, 12, 0) else _ABOVE
    return banded(size, _BELOW, _V0_ABOVE if defaults.engine is Engine.V0 else older, _FLOOR_BYTES)


def budgeted(
    architecture: Architecture, settings: LaunchSettings, defaults: Defaults, release: Release | None
) -> Estimate:
    """What is taken from the budget before the KV cache is sized: vLLM's own estimate (0.20 and later)."""
    version = release or NEWEST
    if not defaults.graph_sizes or not defaults.graphs_in_budget or settings.kv_cache_memory_bytes is not None:
        return exactly(0)
    size = _size(
        architecture,
        defaults,
        coefficients.GRAPH_ESTIMATE_BYTES,
        coefficients.GRAPH_ESTIMATE_LAYER_BYTES,
        coefficients.GRAPH_ESTIMATE_EXPERTS_BYTES,
    )
    found = banded(size, _BELOW, _ABOVE, _FLOOR_BYTES)
    # Runner V2, taken for a list of architectures from 0.22, answered 0 until 0.28.
    return Estimate(0, found.typical, found.high) if (0, 22, 0) <= version < (0, 29, 0) else found


def _size(architecture: Architecture, defaults: Defaults, constant: int, per_layer: int, experts: int) -> float:
    size = constant + per_layer * len(architecture.layers) + (experts if architecture.experts else 0)
    return size * (0.4 + 0.6 * min(1.5, defaults.graph_sizes / _FITTED_SIZES))
