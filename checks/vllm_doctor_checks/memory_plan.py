"""The check of the memory plan: whether the launch fits the GPUs, before any weight is loaded."""

from collections.abc import Iterator

from vllm_doctor.check import CUDA_ONLY, NotApplicable, NotKnown, check
from vllm_doctor.facts import Model, Unknown
from vllm_doctor.finding import Finding
from vllm_doctor.snapshot import Snapshot


@check(
    "memory-plan",
    causes=("oom-weights", "oom-kv", "oom-activation", "oom-cudagraph", "tp-divisibility", "max-len-over-model"),
    needs=("gpus", "launch"),
    platforms=CUDA_ONLY,
)
def memory_plan(snapshot: Snapshot) -> Iterator[Finding]:
    """The launch does not fit the GPUs' memory, for certain or likely.

    Weights, activation peak, CUDA graphs and KV cache of the launch are computed as this release of vLLM takes them,
    and compared with what it may take of each GPU and with what is free.

    Why: vLLM finds out after it has loaded the weights, minutes later, and ends with an out-of-memory error or with
    "larger than the available KV cache memory". The weights and the KV cache are exact, activations and graphs are
    estimated: an error is reported only where the launch fails at the lower end of the estimates. Of a listed model
    whose config is not at hand, this check also says what vLLM refuses of it: a context over the config's, or parallel
    sizes that do not divide it.

    Fix: the changes are in the order of what costs least, and each was planned again: a shorter `--max-model-len`, a
    higher `--gpu-memory-utilization`, an FP8 KV cache, FP8 weights, more GPUs, no CUDA graphs, fewer sequences.
    """
    # The arithmetic is imported only where there is something to plan.
    from vllm_doctor.memory.plan import Verdict
    from vllm_doctor.memory.planning import of_snapshot
    from vllm_doctor_checks import memory_findings

    planned = of_snapshot(snapshot)
    if planned is None:
        raise NotApplicable("there is no launch of a model on NVIDIA GPUs to plan")
    if isinstance(planned, Unknown):
        raise NotKnown(planned.reason)
    config_known = isinstance(snapshot.model, Model) and not isinstance(snapshot.model.config, Unknown)
    if (reason := memory_findings.said_elsewhere(planned.plan, config_known=config_known)) is not None:
        raise NotApplicable(reason)
    # What likely fits is no finding: the plan itself shows how close it is.
    if planned.plan.verdict is not Verdict.FITS:
        yield memory_findings.finding(planned)
