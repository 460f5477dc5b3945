"""The text of `vllm-doctor plan`: the verdict, the picture, and the command that fits."""

from collections.abc import Iterator
from textwrap import wrap

from vllm_doctor.memory import capacity, drawing
from vllm_doctor.memory.advice import Advice
from vllm_doctor.memory.budget import holders
from vllm_doctor.memory.cautions import cautions
from vllm_doctor.memory.defaults import NEWEST
from vllm_doctor.memory.estimate import gib
from vllm_doctor.memory.plan import REFUSED, Verdict
from vllm_doctor.memory.planning import Planned


def lines(planned: Planned, advice: tuple[Advice, ...], width: int, *, unicode: bool = True) -> Iterator[str]:
    """The report, line by line, at most `width` columns wide but for commands."""
    width = max(drawing.LEAST_WIDTH, min(width, drawing.MOST_WIDTH))
    plan = planned.plan
    yield from _wrapped(_head(planned), width)
    yield ""
    yield from _wrapped(drawing.sentence(plan), width)
    for caution in cautions(planned):
        yield from _wrapped(f"Note: {caution}", width, "      ")
    yield ""
    yield from drawing.bar(plan, width, unicode=unicode)
    yield ""
    yield from _wrapped(capacity.sentence(plan), width)
    yield from _table(planned)
    yield from _refusal(planned, width)
    yield from _changes(planned, advice, width)
    yield from _notes(planned, width)


def _head(planned: Planned) -> str:
    parameters = billions(planned.plan.weights.parameters)
    device, release = planned.device, planned.release
    version = ".".join(str(n) for n in (release or NEWEST))
    known = "" if release else " (the newest that was read; --vllm names another)"
    board = f"{device.count} x {device.name} ({gib(device.total_bytes)} each)"
    return f"{planned.name} ({parameters} parameters) on {board}, vLLM {version}{known}"


def billions(parameters: int) -> str:
    """A parameter count as people write it."""
    if parameters >= 10**9:
        return f"{parameters / 10**9:.2f} B"
    return f"{parameters / 10**6:.0f} M"


def _table(planned: Planned) -> Iterator[str]:
    rows = drawing.table(planned.capacities())
    if rows:
        yield ""
        yield "Requests at once, by context (what is likely left for the cache):"
        yield from rows


def _refusal(planned: Planned, width: int) -> Iterator[str]:
    plan = planned.plan
    if plan.error is not None and not plan.fits:
        yield ""
        yield "vLLM would say:" if plan.fails else "If it fails, vLLM would say:"
        yield from (f"  {row}" for row in wrap(plan.error, width - 2, break_long_words=False))
    if planned.gpus and plan.verdict.value == "gpu-busy":
        yield from (f"  {row}" for row in holders(planned.gpus))


def _changes(planned: Planned, advice: tuple[Advice, ...], width: int) -> Iterator[str]:
    if planned.plan.fits or (planned.plan.verdict is Verdict.FITS and planned.plan.weights.uncounted is not None):
        return
    yield ""
    starts = "start" if planned.plan.verdict in REFUSED else "fit"
    if planned.plan.verdict in (Verdict.ARCH_UNSUPPORTED, Verdict.MODEL_ARCH_UNSUPPORTED):
        yield from _wrapped("No flag makes it start: take another release, or another GPU.", width)
    elif not advice:
        yield from _wrapped(f"No change of the flags alone makes it {starts}: `--all-gpus` shows what does.", width)
    else:
        yield f"What makes it {starts}, the change that costs least first:"
        for number, change in enumerate(advice, 1):
            yield from _wrapped(f"{number}. {change.title} ({_holds(change)})", width, "   ")
    if (count := planned.gpus_that_do()) is not None and count > planned.device.count:
        yield from _wrapped(f"As it is, it would fit {count} of these GPUs: --tensor-parallel-size {count}.", width)
    yield from _in_four_bits(planned, advice, width)
    if (corrected := planned.corrected(advice)) is not None:
        yield ""
        yield f"  {corrected}"


def _in_four_bits(planned: Planned, advice: tuple[Advice, ...], width: int) -> Iterator[str]:
    """What a smaller checkpoint would do, where no single change does."""
    if any(a.certain and len(a.edit.set) < 2 for a in advice) or (packed := planned.in_four_bits()) is None:
        return
    number = packed.gpus_needed
    where = "one of these GPUs" if number == 1 else f"{number} of these GPUs by tensor parallelism"
    size = gib(packed.weights.per_gpu_bytes)
    yield from _wrapped(f"With 4-bit weights ({size} a GPU; a checkpoint in AWQ or GPTQ) it fits {where}.", width)


def _holds(change: Advice) -> str:
    """What the launch holds with the change, and where that is not certain."""
    result = change.result
    held = f"{result.tokens:,} tokens, {result.max_concurrency:.1f} x {result.max_model_len:,}"
    if change.certain:
        return held
    return f"likely, but too close to call by up to {gib(abs(result.margin_bytes))} a GPU: {held}"


def _notes(planned: Planned, width: int) -> Iterator[str]:
    yield ""
    yield from _wrapped(f"Counted from {planned.config.origin}.", width)
    if planned.plan.measured is not None:
        yield from _wrapped(f"{planned.plan.measured.told[0].upper()}{planned.plan.measured.told[1:]}.", width)
    for text in planned.plan.approximations:
        yield from _wrapped(f"Approximate: {text}", width)
    entry = planned.config.entry
    if entry is not None and entry.gated:
        yield from _wrapped(f"{entry.name} is gated: accept its license on the hub and set HF_TOKEN.", width)


def _wrapped(text: str, width: int, indent: str = "") -> Iterator[str]:
    yield from wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]
