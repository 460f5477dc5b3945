"""The smallest changes of a launch that make it fit, what costs the user least first; each is proved by planning again."""

from collections.abc import Callable, Iterator

from msgspec import Struct, structs

from vllm_doctor.finding import LaunchEdit
from vllm_doctor.memory import parallelism
from vllm_doctor.memory.estimate import gib
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release
from vllm_doctor.memory.plan import Plan, Verdict, plan

MAXIMUM_ADVICE = 4

# More than this of a card leaves no room for what is not counted (allocator fragments, late kernels).
_MOST_UTILIZATION = 0.95
_LEAST_UTILIZATION = 0.1

# A context below this is no help to a chat; the next change is tried instead.
_LEAST_CONTEXT = 2048

# FP8 weights made at load time need compute capability 8.0 (weight-only through Marlin below 8.9); vLLM 0.32
# model_executor/layers/quantization/fp8.py. FP8 KV caches run from 8.0 on with Triton or FlashInfer.
_FP8_CAPABILITY = 80


class Advice(Struct, frozen=True, kw_only=True):
    """A change that was planned again and fits: what to do in words, the edit, and the plan that it leads to."""

    title: str
    edit: LaunchEdit
    result: Plan


class Candidate(Struct, frozen=True, kw_only=True):
    """A change that may help, as settings and as an edit of the launch."""

    title: str
    edit: LaunchEdit
    settings: LaunchSettings


Change = Callable[[Plan, LaunchSettings, Architecture], Iterator[Candidate]]


def advise(
    architecture: Architecture, settings: LaunchSettings, device: Device, release: Release | None, found: Plan
) -> tuple[Advice, ...]:
    """Changes that make the launch fit for certain; none where it fits, or where no change of the flags helps."""
    if found.fits:
        return ()
    single = tuple(_proved(architecture, settings, device, release, found))
    if single:
        return single[:MAXIMUM_ADVICE]
    return tuple(_in_steps(architecture, settings, device, release, found))[:1]


def _proved(
    architecture: Architecture, settings: LaunchSettings, device: Device, release: Release | None, found: Plan
) -> Iterator[Advice]:
    for candidate in _candidates(found, settings, architecture):
        result = plan(architecture, candidate.settings, device, release)
        if result.fits:
            yield Advice(title=candidate.title, edit=candidate.edit, result=result)


def _in_steps(
    architecture: Architecture, settings: LaunchSettings, device: Device, release: Release | None, found: Plan
) -> Iterator[Advice]:
    """One change upon the other, each kept where it leaves more room, until the launch fits."""
    titles: list[str] = []
    edit = LaunchEdit()
    for change in (_parallel, _utilization, _graphs, _sequences, _cache_dtype, _weights_dtype, _context):
        for candidate in change(found, settings, architecture):
            result = plan(architecture, candidate.settings, device, release)
            better = result.kv_cache.low > found.kv_cache.low or result.fits or change is _cache_dtype
            if not better or result.verdict in (Verdict.GPU_BUSY, Verdict.GPU_COUNT, Verdict.TP_DIVISIBILITY):
                continue
            settings, found = candidate.settings, result
            titles.append(candidate.title)
            edit = LaunchEdit(set={**edit.set, **candidate.edit.set}, unset=(*edit.unset, *candidate.edit.unset))
            break
        if found.fits:
            yield Advice(title="; ".join(titles), edit=edit, result=found)
            return


def _candidates(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    for change in _order(found):
        yield from change(found, settings, architecture)


def _order(found: Plan) -> tuple[Change, ...]:
    """What can help against this verdict, in the order of what costs the user least."""
    match found.verdict if found.verdict is not Verdict.FITS else found.pessimistic:
        case Verdict.TP_DIVISIBILITY | Verdict.GPU_COUNT:
            return (_parallel,)
        case Verdict.GPU_BUSY:
            return (_utilization,)
        case Verdict.OOM_CUDAGRAPH:
            return (_utilization, _graph_sizes, _graphs, _sequences)
        case Verdict.OOM_ACTIVATION:
            return (_sequences, _batch, _parallel, _weights_dtype)
        case _:
            return (_context, _utilization, _cache_dtype, _weights_dtype, _parallel, _graphs, _sequences)


def _changed(title: str, flag: str, value: str | None, settings: LaunchSettings) -> Candidate:
    return Candidate(title=title, edit=LaunchEdit(set={flag: value}), settings=settings)


def _context(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:  # noqa: ARG001
    """The longest context that starts for certain, rounded down to what people write."""
    length = found.safe_max_model_len
    step = 1024 if length >= 8192 else 256
    rounded = length // step * step
    if _LEAST_CONTEXT <= rounded < found.defaults.max_model_len:
        title = f"a shorter context: {rounded} tokens instead of {found.defaults.max_model_len}"
        yield _changed(title, "--max-model-len", str(rounded), structs.replace(settings, max_model_len=rounded))


def _utilization(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:  # noqa: ARG001
    """More of the card where it is free, less where it is not."""
    now = found.budget.utilization
    free = int(found.budget.free.low / found.budget.total_bytes * 100) / 100 if found.budget.total_bytes else 0.0
    lower = int(min(now, free) * 100 - 1) / 100
    for share in dict.fromkeys((min(free, _MOST_UTILIZATION), free, lower, lower - 0.02, lower - 0.05)):
        if _LEAST_UTILIZATION <= share and abs(share - now) > 0.004 and settings.kv_cache_memory_bytes is None:
            word = "more" if share > now else "less"
            title = f"take {word} of the card: {share:.2f} instead of {now:g}"
            changed = structs.replace(settings, gpu_memory_utilization=round(share, 2))
            yield _changed(title, "--gpu-memory-utilization", f"{share:.2f}", changed)


def _cache_dtype(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    """An FP8 cache holds twice the tokens."""
    attends = not architecture.is_attention_free
    if settings.kv_cache_dtype == "auto" and attends and (found.device.capability or 0) >= _FP8_CAPABILITY:
        changed = structs.replace(settings, kv_cache_dtype="fp8")
        yield _changed("an FP8 KV cache: half the bytes of a token", "--kv-cache-dtype", "fp8", changed)
        yield from _both_cache_and_context(found, changed, architecture)


def _both_cache_and_context(found: Plan, changed: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    length = found.safe_max_model_len * 2 * 95 // 100 // 256 * 256
    native = architecture.native_max_model_len or 0
    if _LEAST_CONTEXT <= length < found.defaults.max_model_len and native:
        title = f"an FP8 KV cache and a context of {length} tokens"
        edit = LaunchEdit(set={"--kv-cache-dtype": "fp8", "--max-model-len": str(length)})
        yield Candidate(title=title, edit=edit, settings=structs.replace(changed, max_model_len=length))


def _weights_dtype(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    """FP8 weights, made while they are loaded: half of 16 bits."""
    plain = architecture.quantization is None and settings.quantization is None
    if plain and (found.device.capability or 0) >= _FP8_CAPABILITY:
        changed = structs.replace(settings, quantization="fp8")
        yield _changed("FP8 weights: half the bytes", "--quantization", "fp8", changed)


def _parallel(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:
    """More GPUs of this machine for one model; or fewer, where there are not as many or the heads do not divide."""
    replicas = settings.data_parallel_size * settings.pipeline_parallel_size
    sizes = parallelism.sizes(architecture, found.device.count // max(1, replicas))
    now = settings.tensor_parallel_size
    wanted = [s for s in sizes if s > now] or [s for s in reversed(sizes) if s < now]
    if found.verdict in (Verdict.TP_DIVISIBILITY, Verdict.GPU_COUNT):
        wanted = [s for s in reversed(sizes) if s != now]
    for size in wanted:
        title = f"{size} GPUs by tensor parallelism" if size > 1 else "one GPU"
        changed = structs.replace(settings, tensor_parallel_size=size)
        yield _changed(title, "--tensor-parallel-size", str(size), changed)


def _graphs(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:  # noqa: ARG001
    """No CUDA graphs: slower tokens at small batches."""
    if found.defaults.graph_sizes:
        title = f"no CUDA graphs: {gib(found.graphs_captured.typical)} less, and slower answers"
        yield _changed(title, "--enforce-eager", None, structs.replace(settings, enforce_eager=True))


def _graph_sizes(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:  # noqa: ARG001
    """Graphs for small batches only."""
    if found.defaults.largest_graph > 64 and settings.max_num_seqs is None:
        changed = structs.replace(settings, max_num_seqs=32)
        yield _changed("at most 32 sequences, and graphs for as many", "--max-num-seqs", "32", changed)


def _sequences(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:  # noqa: ARG001
    """Fewer sequences: a smaller sampler peak."""
    for number in (256, 64, 16):
        if number < found.defaults.max_num_seqs:
            changed = structs.replace(settings, max_num_seqs=number)
            yield _changed(f"at most {number} sequences at once", "--max-num-seqs", str(number), changed)


def _batch(found: Plan, settings: LaunchSettings, architecture: Architecture) -> Iterator[Candidate]:  # noqa: ARG001
    """Smaller batches of prompt tokens: a smaller forward pass."""
    if found.defaults.max_num_batched_tokens > 2048 and found.defaults.chunked_prefill:
        changed = structs.replace(settings, max_num_batched_tokens=2048)
        yield _changed("2048 prompt tokens a step", "--max-num-batched-tokens", "2048", changed)
