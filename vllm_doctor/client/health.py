"""The step of the live server's health, and the watch: /metrics sampled once, twice or every second."""

import time
from collections.abc import Callable

from msgspec import Struct

from vllm_doctor.client.health_rules import KV_USAGE, RUNNING, WAITING, Window, judge
from vllm_doctor.client.metrics import Sample, rate, read
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.visit import Broken, Skipped, Visit
from vllm_doctor.finding import Finding, Fix, error

INTERVAL_SECONDS = 1.0


class Figures(Struct, frozen=True, kw_only=True):
    """The live figures; None is "not evaluated". Rates are per second and need two samples; times are seconds."""

    running: float | None = None
    waiting: float | None = None
    kv_cache_usage: float | None = None
    prefix_cache_hit_share: float | None = None
    preemptions: float | None = None
    prompt_tokens_per_second: float | None = None
    generation_tokens_per_second: float | None = None
    first_token_p50_seconds: float | None = None
    first_token_p95_seconds: float | None = None
    inter_token_p95_seconds: float | None = None
    request_p95_seconds: float | None = None


class Health(Struct, frozen=True, kw_only=True):
    """What one look, or a watch, brought: figures, findings, and the rules that lacked a metric."""

    figures: Figures
    findings: tuple[Finding, ...]
    not_evaluated: dict[str, str]
    samples: int = 1


def figures(window: Window) -> Figures:
    """The figures of a window."""
    last, first = window.last, window.first
    queries, hits = (last.total(f"vllm:prefix_cache_{name}") for name in ("queries", "hits"))
    return Figures(
        running=last.total(RUNNING),
        waiting=last.total(WAITING),
        kv_cache_usage=last.largest(*KV_USAGE),
        prefix_cache_hit_share=hits / queries if queries and hits is not None else None,
        preemptions=last.total("vllm:num_preemptions"),
        prompt_tokens_per_second=rate(first, last, "vllm:prompt_tokens") if first is not None else None,
        generation_tokens_per_second=rate(first, last, "vllm:generation_tokens") if first is not None else None,
        first_token_p50_seconds=_percentile(window, 0.5, "vllm:time_to_first_token_seconds"),
        first_token_p95_seconds=_percentile(window, 0.95, "vllm:time_to_first_token_seconds"),
        inter_token_p95_seconds=_percentile(
            window, 0.95, "vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"
        ),
        request_p95_seconds=_percentile(window, 0.95, "vllm:e2e_request_latency_seconds"),
    )


def _percentile(window: Window, share: float, *names: str) -> float | None:
    name = next((each for each in names if window.last.histogram(each)), None)
    return None if name is None else window.percentile(name, share)


def examine(last: Sample, first: Sample | None = None, samples: int = 1) -> Health:
    """Judge one sample or two."""
    window = Window(last, first)
    found, absent = judge(window)
    return Health(figures=figures(window), findings=found, not_evaluated=absent, samples=samples)


def sample(visit: Visit) -> Sample | Reply:
    """GET /metrics; the reply itself where it holds nothing of vLLM."""
    reply = visit.session.get(f"{visit.root}/metrics", key=False)
    return read(reply) or reply


def health(visit: Visit) -> str:
    """One look at /health and /metrics, after the walk's own requests."""
    state = visit.session.get(f"{visit.root}/health", key=False)
    if state.status is None or state.status >= 500:
        raise Broken(_unwell(visit, state))
    found = sample(visit)
    if isinstance(found, Reply):
        raise Skipped(f"not evaluated: GET /metrics: {found.status or found.problem}, nothing of vLLM in it")
    judged = examine(found)
    if judged.findings:
        raise Broken(*judged.findings)
    return f"{told(judged.figures)}; not evaluated: {', '.join(judged.not_evaluated) or 'none'}"


def _unwell(visit: Visit, state: Reply) -> Finding:
    fix = Fix(title="Read the server's log from its first error on (`vllm-doctor explain LOG`), and start it again")
    title = f"The engine behind {visit.shown_base} died while it was being asked"
    return error("engine-dead", title, evidence=(state.said,), fixes=(fix,))


def told(live: Figures) -> str:
    """The figures as one line; what is absent is left out."""
    parts = [
        ("running", live.running, "{:.0f}"),
        ("waiting", live.waiting, "{:.0f}"),
        ("KV cache", None if live.kv_cache_usage is None else 100 * live.kv_cache_usage, "{:.0f} %"),
        ("prefix hits", None if live.prefix_cache_hit_share is None else 100 * live.prefix_cache_hit_share, "{:.0f} %"),
        ("preemptions", live.preemptions, "{:.0f}"),
        ("tokens/s in", live.prompt_tokens_per_second, "{:.1f}"),
        ("out", live.generation_tokens_per_second, "{:.1f}"),
        ("first token p95", live.first_token_p95_seconds, "{:.3f} s"),
        ("token p95", live.inter_token_p95_seconds, "{:.3f} s"),
        ("request p95", live.request_p95_seconds, "{:.3f} s"),
    ]
    return ", ".join(f"{name} {form.format(value)}" for name, value, form in parts if value is not None)


def watch(visit: Visit, seconds: float, seen: Callable[[Figures], None]) -> Health | Reply:
    """Sample every second for that long; the reply where /metrics holds nothing of vLLM or the server goes away."""
    first = sample(visit)
    if isinstance(first, Reply):
        return first
    last, count, end = first, 1, first.at + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(INTERVAL_SECONDS, left))
        found = sample(visit)
        if isinstance(found, Reply):
            return found
        seen(figures(Window(found, last)))
        last, count = found, count + 1
    return examine(last, first, count)


def lost_watch(visit: Visit, reply: Reply) -> Finding | None:
    """What it means that a watch ended early; None where /metrics is simply not there."""
    if reply.status is not None and reply.status < 500:
        return None
    return _unwell(visit, reply)
