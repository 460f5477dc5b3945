"""What the memory plan of a launch says, as a finding: the sizes compared, vLLM's words, and changes that fit."""

from collections.abc import Iterator

from vllm_doctor.finding import Finding, Fix, error, warning
from vllm_doctor.memory.advice import Advice
from vllm_doctor.memory.drawing import VERDICTS, sentence
from vllm_doctor.memory.estimate import gib
from vllm_doctor.memory.plan import Certainty, Plan, Verdict
from vllm_doctor.memory.planning import Planned

# These have checks of their own, which know more of the machine than the plan does; the latter read the model's config.
_BY_MACHINE = frozenset({Verdict.GPU_COUNT, Verdict.GPU_BUSY})
_BY_CONFIG = frozenset({Verdict.TP_DIVISIBILITY, Verdict.MAX_LEN_OVER_MODEL})


def said_elsewhere(plan: Plan, *, config_known: bool) -> str | None:
    """Why another check speaks of it; None where it is the plan's to say, which also knows listed models."""
    said = plan.verdict in _BY_MACHINE or (config_known and plan.verdict in _BY_CONFIG)
    return f"another check says more of it: {VERDICTS[plan.verdict]}" if said else None


def finding(planned: Planned) -> Finding:
    """An error where it will not start, a warning where that is likely and the estimates' band decides."""
    plan = planned.plan
    cause = plan.verdict.value
    # A command that is shown as corrected takes the first of them.
    advice = sorted(planned.advice(), key=lambda a: not a.certain)
    fixes = (*(_fix(a) for a in advice), *_more_gpus(planned))
    make = error if plan.certainty is Certainty.CERTAIN else warning
    return make(cause, sentence(plan).rstrip("."), evidence=tuple(_evidence(planned, plan)), fixes=fixes)


def _fix(advice: Advice) -> Fix:
    """Applied of itself only where it is certain to do, and serves the same model."""
    title = advice.title if advice.certain else f"{advice.title} (likely enough, but too close to call)"
    return Fix(title=title, launch=advice.edit, automatic=advice.certain and advice.edit.positional is None)


def _more_gpus(planned: Planned) -> Iterator[Fix]:
    count = planned.gpus_that_do()
    if count is not None and count > planned.device.count:
        title = f"Use {count} of these GPUs, for which it fits as it is (--tensor-parallel-size {count})"
        yield Fix(title=title)


def _evidence(planned: Planned, plan: Plan) -> Iterator[str]:
    if plan.verdict in _BY_CONFIG:
        yield f"counted from {planned.config.origin}"
        yield f"vLLM would say: {plan.error}"
        return
    device = planned.device
    free = f", {gib(device.free_bytes)} free" if device.free_bytes is not None else ""
    yield f"{device.count} x {device.name}: {gib(device.total_bytes)} each{free}"
    share = f"--gpu-memory-utilization {plan.budget.utilization:g}"
    yield f"{share}: vLLM may take {gib(plan.budget.requested_bytes)} of each"
    yield f"weights {gib(plan.weights.per_gpu_bytes)} a GPU ({planned.config.origin})"
    sizes = f"{plan.defaults.max_num_batched_tokens} tokens and {plan.defaults.max_num_seqs} sequences a step"
    yield f"activations {_range(plan.activation.low, plan.activation.high)} ({sizes})"
    yield f"CUDA graphs {_range(plan.graphs_captured.low, plan.graphs_captured.high)}, other {gib(plan.other.typical)}"
    left = max(0, plan.kv_cache.typical)
    yield f"KV cache: {gib(left)} left, one request of {plan.max_model_len} tokens needs {gib(plan.needed_bytes)}"
    if plan.error is not None:
        yield f"vLLM would say: {plan.error}"


def _range(low: int, high: int) -> str:
    return gib(low) if low == high else f"{gib(low)} to {gib(high)}"
