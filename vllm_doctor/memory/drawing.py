"""The plan as lines of plain text: the verdict, a bar of what takes the memory, and what fits at which context."""

from collections.abc import Iterator
from typing import NamedTuple

from vllm_doctor.memory.capacity import Capacities, Row, times_in_words
from vllm_doctor.memory.estimate import GIB, Estimate, gib
from vllm_doctor.memory.plan import REFUSED, Certainty, Plan, Verdict

LEAST_WIDTH, MOST_WIDTH = 60, 120

VERDICTS = {
    Verdict.FITS: "it fits",
    Verdict.OOM_WEIGHTS: "the weights do not fit the GPU",
    Verdict.OOM_KV: "too little memory is left for the KV cache",
    Verdict.OOM_ACTIVATION: "the profile run will run out of memory",
    Verdict.OOM_CUDAGRAPH: "capturing CUDA graphs will run out of memory",
    Verdict.GPU_BUSY: "less is free than vLLM is told to take",
    Verdict.GPU_COUNT: "there are fewer GPUs than the launch asks for",
    Verdict.TP_DIVISIBILITY: "the model cannot be divided by that parallel size",
    Verdict.MAX_LEN_OVER_MODEL: "the context asked for is longer than the model's config allows",
    Verdict.BAD_FLAG: "this release does not take a flag of it",
    Verdict.MODEL_ARCH_UNSUPPORTED: "this release has no code for the model's architecture",
    Verdict.ARCH_UNSUPPORTED: "this release's wheel has no kernels for the GPU",
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
    if plan.verdict is Verdict.MAX_LEN_OVER_MODEL and plan.allowed_max_model_len is not None:
        allowed = f"the model's config allows {plan.allowed_max_model_len:,}"
        return f"Will not start: {plan.max_model_len:,} tokens of context are asked for, and {allowed}."
    if plan.verdict in REFUSED:
        return f"Will not start: {VERDICTS[plan.verdict]}."
    if plan.verdict is Verdict.FITS and plan.weights.uncounted is not None:
        return f"Cannot be told: it likely fits without {plan.weights.uncounted}, which could not be counted."
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
        told = band(part.estimate, unicode=unicode)
        yield f"   {sign} {part.name:<12} {gib(part.estimate.typical):>9}{f'  ({told})' if told else ''}"
    sign = "·" if unicode else "."
    left = rest(plan)
    text = f"   {sign} {left.name:<12} {gib(left.size_bytes):>9}"
    yield text + f"  ({left.told})" if left.told and len(text) + len(left.told) + 4 <= width else text


class Rest(NamedTuple):
    """What of the card the launch leaves: its name, its bytes, and what sets them."""

    name: str
    size_bytes: int
    told: str


def rest(plan: Plan) -> Rest:
    """What is not taken: the share that the launch leaves, or for a model without a cache all that is left."""
    if plan.kv_cache == Estimate(0, 0, 0):
        taken = sum(p.estimate.typical for p in parts(plan))
        return Rest("left", max(0, plan.device.total_bytes - taken), "")
    left = plan.device.total_bytes - max(plan.budget.requested_bytes, 0)
    told = f"--gpu-memory-utilization {plan.budget.utilization:g} of {gib(plan.device.total_bytes)}"
    return Rest("not taken", max(0, left), told)


def band(estimate: Estimate, *, unicode: bool = True) -> str:
    """The error band of a size in GiB; nothing for one that is exact."""
    if estimate.low == estimate.high:
        return ""
    dash = "–" if unicode else "-"  # noqa: RUF001 - a range
    return f"{estimate.low / GIB:.1f}{dash}{estimate.high / GIB:.1f}"


def table(found: Capacities) -> tuple[str, ...]:
    """How many requests fit at once, by their length, as lines of text."""
    if not found.rows:
        return ()
    head = f"  {'context':>9}  " + "  ".join(f"{name:>12}" for name in found.headings)
    return (head, *(_row(row) for row in found.rows))


def _row(row: Row) -> str:
    cells = "  ".join(f"{times_in_words(number):>12}" for number in row.times)
    return f"  {row.length:>9,}  {cells}{'  < asked' if row.asked else ''}"
