"""The plan as lines of plain text: the verdict, a bar of what takes the memory, and what fits at which context."""

from collections.abc import Iterator
from typing import NamedTuple

from vllm_doctor.memory.defaults import NEWEST
from vllm_doctor.memory.estimate import GIB, Estimate, gib
from vllm_doctor.memory.facts import Architecture, LaunchSettings, Release
from vllm_doctor.memory.kv_cache import kv_layout
from vllm_doctor.memory.kv_cache.specs import takes_fp8_cache
from vllm_doctor.memory.plan import Certainty, Plan, Verdict

LEAST_WIDTH, MOST_WIDTH = 60, 120
_LENGTHS = (2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576, 4194304, 10485760)
_ROWS = 8

VERDICTS = {
    Verdict.FITS: "it fits",
    Verdict.OOM_WEIGHTS: "the weights do not fit the GPU",
    Verdict.OOM_KV: "too little memory is left for the KV cache",
    Verdict.OOM_ACTIVATION: "the profile run will run out of memory",
    Verdict.OOM_CUDAGRAPH: "capturing CUDA graphs will run out of memory",
    Verdict.GPU_BUSY: "less is free than vLLM is told to take",
    Verdict.GPU_COUNT: "there are fewer GPUs than the launch asks for",
    Verdict.TP_DIVISIBILITY: "the model cannot be divided by that parallel size",
}


class Part(NamedTuple):
    """One part of the bar: its name, its bytes, and its sign with and without Unicode."""

    name: str
    estimate: Estimate
    sign: str
    ascii_sign: str


def sentence(plan: Plan) -> str:
    """The verdict in one line, with its margin."""
    margin = gib(abs(plan.margin_bytes))
    if plan.verdict in (Verdict.TP_DIVISIBILITY, Verdict.GPU_COUNT):
        return f"Will not start: {VERDICTS[plan.verdict]}."
    if plan.certainty is Certainty.CLOSE:
        return f"Too close to call ({_leaning(plan)}): the estimates' error band decides, by up to {margin} a GPU."
    if plan.verdict is Verdict.FITS:
        return f"Fits, with {margin} a GPU to spare at the pessimistic end of the estimates."
    return f"Will not start: {VERDICTS[plan.verdict]}, by at least {margin} a GPU."


def _leaning(plan: Plan) -> str:
    if plan.verdict is Verdict.FITS:
        return f"likely it fits, else {VERDICTS[plan.pessimistic]}"
    return f"likely {VERDICTS[plan.verdict]}"


def parts(plan: Plan) -> tuple[Part, ...]:
    """What takes the memory, from the bottom of the card up."""
    zero = Estimate(0, 0, 0)
    weights = plan.weights.per_gpu_bytes
    cache = Estimate(*(max(0, b) for b in (plan.kv_cache.low, plan.kv_cache.typical, plan.kv_cache.high)))
    found = (
        Part("weights", Estimate(weights, weights, weights), "█", "#"),
        Part("activations", plan.activation, "▓", "="),
        Part("CUDA graphs", plan.graphs if plan.graphs.typical else plan.graphs_captured, "▒", "+"),
        Part("other", plan.other, "◦", "o"),
        Part("KV cache", cache, "░", ":"),
    )
    return tuple(p for p in found if p.estimate != zero)


def bar(plan: Plan, width: int, *, unicode: bool = True) -> tuple[str, ...]:
    """The card as one bar of that width at most, and a line for each of its parts."""
    room = max(20, min(width, MOST_WIDTH) - 4)
    total = max(plan.device.total_bytes, sum(p.estimate.typical for p in parts(plan)))
    cells: list[str] = []
    used = 0
    for part in parts(plan):
        used += part.estimate.typical
        end = round(used / total * room)
        least = 1 if end > len(cells) or len(cells) >= room else 0
        cells.extend((part.sign if unicode else part.ascii_sign) * max(least, end - len(cells)))
    row = "".join(cells)[:room].ljust(room, "·" if unicode else " ")
    edge = round(plan.device.total_bytes / total * room)
    if edge < room:
        row = row[:edge] + "|" + row[edge + 1 :]
    return (f"  [{row}]", *_legend(plan, width, unicode=unicode))


def _legend(plan: Plan, width: int, *, unicode: bool) -> Iterator[str]:
    for part in parts(plan):
        sign = part.sign if unicode else part.ascii_sign
        yield f"   {sign} {part.name:<12} {gib(part.estimate.typical):>9}{_band(part.estimate, unicode=unicode)}"
    sign = "·" if unicode else "."
    if plan.kv_cache == Estimate(0, 0, 0):
        taken = sum(p.estimate.typical for p in parts(plan))
        yield f"   {sign} {'left':<12} {gib(max(0, plan.device.total_bytes - taken)):>9}"
        return
    rest = plan.device.total_bytes - max(plan.budget.requested_bytes, 0)
    text = f"   {sign} {'not taken':<12} {gib(max(0, rest)):>9}"
    more = f"  (--gpu-memory-utilization {plan.budget.utilization:g} of {gib(plan.device.total_bytes)})"
    yield text + more if len(text) + len(more) <= width else text


def _band(estimate: Estimate, *, unicode: bool) -> str:
    if estimate.low == estimate.high:
        return ""
    dash = "–" if unicode else "-"  # noqa: RUF001 - a range
    return f"  ({estimate.low / GIB:.1f}{dash}{estimate.high / GIB:.1f})"


def table(
    plan: Plan,
    architecture: Architecture,
    settings: LaunchSettings,
    release: Release | None,
    draft: Architecture | None = None,
) -> tuple[str, ...]:
    """How many requests fit at once, by their length: with this cache, and with an FP8 one."""
    from msgspec.structs import replace

    if plan.kv_cache.typical <= 0:
        return ()
    kinds = [("as launched", settings)]
    attends = not architecture.is_attention_free and takes_fp8_cache(architecture)
    if settings.kv_cache_dtype == "auto" and attends and (plan.device.capability or 0) >= 80:
        kinds.append(("FP8 KV cache", replace(settings, kv_cache_dtype="fp8")))
    rows = [_row(plan, length, kinds, architecture, release, draft) for length in _lengths(plan, architecture)]
    head = f"  {'context':>9}  " + "  ".join(f"{name:>12}" for name, _ in kinds)
    return (head, *rows) if rows else ()


def _lengths(plan: Plan, architecture: Architecture) -> tuple[int, ...]:
    most = max(architecture.native_max_model_len or 0, plan.max_model_len)
    found = {length for length in _LENGTHS if length <= most} | {plan.max_model_len, min(most, plan.max_model_len)}
    return tuple(sorted(found)[-_ROWS:])


def _row(
    plan: Plan,
    length: int,
    kinds: list[tuple[str, LaunchSettings]],
    architecture: Architecture,
    release: Release | None,
    draft: Architecture | None,
) -> str:
    cells = []
    for _, settings in kinds:
        tokens = plan.defaults.max_num_batched_tokens
        layout = kv_layout(architecture, settings, release or NEWEST, plan.device, tokens, length, draft)
        fits = layout.fits(plan.kv_cache.typical, length)
        number = layout.capacity(plan.kv_cache.typical, length).max_concurrency
        cells.append(f"{_times(number) if fits else 'does not fit':>12}")
    mark = "  < asked" if length == plan.max_model_len else ""
    return f"  {length:>9,}  " + "  ".join(cells) + mark


def _times(number: float) -> str:
    return f"{number:,.0f} at once" if number >= 10 else f"{number:.1f} at once"
