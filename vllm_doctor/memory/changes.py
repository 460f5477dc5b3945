"""What can be changed in a launch so that it takes less memory, in the order of what costs the user least."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from vllm_doctor.finding import LaunchEdit
from vllm_doctor.memory import parallelism
from vllm_doctor.memory.estimate import gib
from vllm_doctor.memory.facts import Architecture, LaunchSettings
from vllm_doctor.memory.kv_cache.specs import takes_fp8_cache
from vllm_doctor.memory.plan import Plan, Verdict

# More than this of a card leaves no room for what is not counted (allocator fragments, late kernels).
_MOST_UTILIZATION = 0.95
_LEAST_UTILIZATION = 0.1

# A context below this is no help to a chat; the next change is tried instead.
_LEAST_CONTEXT = 2048

# FP8 weights made at load time need compute capability 8.0 (weight-only through Marlin below 8.9); vLLM 0.32
# model_executor/layers/quantization/fp8.py. FP8 KV caches run from 8.0 on with Triton or FlashInfer.
_FP8_CAPABILITY = 80


class Candidate(Struct, frozen=True, kw_only=True):
    """A change that may help: in words, as an edit of the launch, and as new values of the settings."""

    title: str
    edit: LaunchEdit
    changes: Mapping[str, Any]


Change = Callable[[Plan, LaunchSettings, Architecture], Iterator[Candidate]]


def _flag(title: str, flag: str, value: str | None, **changes: Any) -> Candidate:
    return Candidate(title=title, edit=LaunchEdit(set={flag: value}), changes=changes)


def context(found: Plan, _settings: LaunchSettings, _architecture: Architecture) -> Iterator[Candidate]:
    """The longest context that starts for certain, rounded down to what people write."""
    length = found.safe_max_model_len
    rounded = length // 1024 * 1024 if length >= 8192 else length // 256 * 256
    if _LEAST_CONTEXT <= rounded < found.defaults.max_model_len:
        title = f"Shorten the context to {rounded} tokens"
        yield _flag(title, "--max-model-len", str(rounded), max_model_len=rounded)


def allowed(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    """A context within what the model's config allows, where more was asked for; else a shorter one that fits."""
    longest = architecture.longest_max_model_len
    if found.verdict is Verdict.MAX_LEN_OVER_MODEL and longest is not None:
        title = f"Ask for no more than the {longest} tokens that the model's config allows"
        yield _flag(title, "--max-model-len", str(longest), max_model_len=longest)
        yield from context(found, settings, architecture)


def utilization(found: Plan, settings: LaunchSettings, _architecture: Architecture) -> Iterator[Candidate]:
    """More of the card where it is free, the least first; less where it is not."""
    if settings.kv_cache_memory_bytes is not None:
        return
    now = found.budget.utilization
    free = found.budget.free.low * 100 // max(1, found.budget.total_bytes) / 100
    most = round(min(free, _MOST_UTILIZATION) * 100)
    lower = round(min(now - 0.03, free), 2)
    more = [percent / 100 for percent in range(int(now * 100) + 1, most + 1)]
    for share in (*more, lower, round(lower - 0.03, 2)):
        if share >= _LEAST_UTILIZATION and abs(share - now) > 0.004:
            word = "more" if share > now else "less"
            title = f"Take {word} of the card: {share:.2f} instead of {now:g}"
            yield _flag(title, "--gpu-memory-utilization", f"{share:.2f}", gpu_memory_utilization=share)


def most_utilization(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    """As much of the card as may be taken, for what needs more than that."""
    shares = {c.changes["gpu_memory_utilization"]: c for c in utilization(found, settings, architecture)}
    if shares and max(shares) > found.budget.utilization:
        yield shares[max(shares)]


def cache_dtype(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    """An FP8 cache holds twice the tokens; with it, a context of twice the length."""
    attends = not architecture.is_attention_free and takes_fp8_cache(architecture)
    if settings.kv_cache_dtype != "auto" or not attends or (found.device.capability or 0) < _FP8_CAPABILITY:
        return
    yield _flag("Keep the KV cache in FP8: half the bytes of a token", "--kv-cache-dtype", "fp8", kv_cache_dtype="fp8")
    length = found.safe_max_model_len * 2 * 95 // 100 // 256 * 256
    if _LEAST_CONTEXT <= length < found.defaults.max_model_len:
        edit = LaunchEdit(set={"--kv-cache-dtype": "fp8", "--max-model-len": str(length)})
        changes = {"kv_cache_dtype": "fp8", "max_model_len": length}
        yield Candidate(
            title=f"Keep the KV cache in FP8, and shorten the context to {length} tokens", edit=edit, changes=changes
        )


def weights_dtype(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    """FP8 weights, made while they are loaded: half of 16 bits."""
    plain = architecture.quantization is None and settings.quantization is None
    if plain and (found.device.capability or 0) >= _FP8_CAPABILITY:
        yield _flag("Make FP8 weights while loading: half the bytes", "--quantization", "fp8", quantization="fp8")


def parallel(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    """More GPUs of this machine for one model; or fewer, where there are not as many or the heads do not divide."""
    replicas = settings.data_parallel_size * settings.pipeline_parallel_size
    sizes = parallelism.sizes(architecture, found.device.count // max(1, replicas))
    now = settings.tensor_parallel_size
    wanted = [s for s in sizes if s > now]
    if found.verdict in (Verdict.TP_DIVISIBILITY, Verdict.GPU_COUNT):
        wanted = sorted((s for s in sizes if s != now), key=lambda s: (abs(s - now), s))
    for size in wanted:
        title = f"Use {size} GPUs by tensor parallelism" if size > 1 else "Use one GPU"
        yield _flag(title, "--tensor-parallel-size", str(size), tensor_parallel_size=size)


def graphs(found: Plan, _settings: LaunchSettings, _architecture: Architecture) -> Iterator[Candidate]:
    """No CUDA graphs: slower tokens at small batches."""
    if found.defaults.graph_sizes:
        title = f"Capture no CUDA graphs: {gib(found.graphs_captured.typical)} less, and slower answers"
        yield _flag(title, "--enforce-eager", None, enforce_eager=True)


def sequences(found: Plan, _settings: LaunchSettings, _architecture: Architecture) -> Iterator[Candidate]:
    """Fewer sequences: a smaller sampler peak, and fewer graphs."""
    for number in (256, 64, 16):
        if number < found.defaults.max_num_seqs:
            yield _flag(f"Serve at most {number} sequences at once", "--max-num-seqs", str(number), max_num_seqs=number)


def batch(found: Plan, _settings: LaunchSettings, _architecture: Architecture) -> Iterator[Candidate]:
    """Smaller batches of prompt tokens: a smaller forward pass."""
    if found.defaults.max_num_batched_tokens > 2048 and found.defaults.chunked_prefill:
        title = "Take 2048 prompt tokens a step"
        yield _flag(title, "--max-num-batched-tokens", "2048", max_num_batched_tokens=2048)


_CACHE: tuple[Change, ...] = (context, utilization, cache_dtype, weights_dtype, parallel, graphs, sequences)

# What can help against each verdict.
ORDER: Mapping[Verdict, tuple[Change, ...]] = {
    Verdict.FITS: (),
    Verdict.OOM_KV: _CACHE,
    Verdict.OOM_WEIGHTS: (weights_dtype, parallel),
    Verdict.OOM_ACTIVATION: (sequences, batch, parallel, weights_dtype),
    Verdict.OOM_CUDAGRAPH: (utilization, sequences, graphs),
    Verdict.GPU_BUSY: (utilization,),
    Verdict.GPU_COUNT: (parallel,),
    Verdict.TP_DIVISIBILITY: (parallel,),
    Verdict.MAX_LEN_OVER_MODEL: (allowed,),
    Verdict.BAD_FLAG: (),
    Verdict.MODEL_ARCH_UNSUPPORTED: (),
    Verdict.ARCH_UNSUPPORTED: (),
}

# The order in which changes are heaped up where none alone is enough.
STEPS: tuple[Change, ...] = (
    allowed,
    parallel,
    weights_dtype,
    most_utilization,
    cache_dtype,
    context,
    sequences,
    graphs,
    context,
)
