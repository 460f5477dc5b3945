"""What a start left for the KV cache, against the plan of it: it mends the estimates of launches of the same shape."""

from vllm_doctor.facts.base import Facts
from vllm_doctor.memory.defaults import Defaults
from vllm_doctor.memory.estimate import MIB, Estimate, exactly
from vllm_doctor.memory.facts import LaunchSettings

# Two starts of one launch differ by less: what vLLM logs is rounded to 0.01 GiB, and torch's blocks to 20 MiB.
BAND_BYTES = 64 * MIB


class Shape(Facts, frozen=True):
    """What the estimated terms of a launch depend on, the model and the card aside."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    graphs: bool
    dtype: str
    kv_cache_dtype: str
    quantization: str | None


class Measured(Facts, frozen=True):
    """By how much more (or less) was left for the KV cache of one GPU than planned; `told` says when that was seen."""

    shape: Shape
    delta_bytes: int
    told: str


def shape_of(settings: LaunchSettings, defaults: Defaults) -> Shape:
    """The shape of a launch."""
    return Shape(
        tensor_parallel_size=settings.tensor_parallel_size,
        pipeline_parallel_size=settings.pipeline_parallel_size,
        data_parallel_size=settings.data_parallel_size,
        max_num_seqs=defaults.max_num_seqs,
        max_num_batched_tokens=defaults.max_num_batched_tokens,
        graphs=bool(defaults.graph_sizes),
        dtype=settings.dtype,
        kv_cache_dtype=settings.kv_cache_dtype,
        quantization=settings.quantization,
    )


def mended(measured: Measured, terms: tuple[Estimate, Estimate, Estimate]) -> tuple[Estimate, Estimate, Estimate]:
    """Activations, graphs and what lies outside of torch, so that what is left is what was measured, within the band.

    Which of the three was off is not known; the last takes all of it.
    """
    activation, graphs, other = (exactly(term.typical) for term in terms)
    size = other.typical - measured.delta_bytes
    return activation, graphs, Estimate(size - BAND_BYTES, size, size + BAND_BYTES)
