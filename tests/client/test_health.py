"""The figures of /metrics: read, subtracted, judged; what is absent is not evaluated."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.scripted import Asked, Scripted, response
from vllm_doctor.client.health import Figures, examine, figures, watch
from vllm_doctor.client.health_rules import RULES, Window, judge
from vllm_doctor.client.metrics import Sample, percentile, rate, read
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.visit import Options, Visit
from vllm_doctor.client.walk import walk

RECORDED = Path(__file__).resolve().parent.parent.parent / "fixtures" / "metrics" / "vllm-0.32-idle.txt"


def sample(at: float = 0.0, **values: Any) -> Sample:
    """`vllm:` before each name; a tuple is a histogram's (bound, count) rows, a dict the labels of an info metric."""
    rows: dict[str, tuple[tuple[dict[str, str], float], ...]] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            rows[f"vllm:{name}"] = ((value, 1.0),)
        elif isinstance(value, tuple):
            rows[f"vllm:{name}_bucket"] = tuple(({"le": str(bound)}, float(count)) for bound, count in value)
        else:
            rows[f"vllm:{name}"] = (({}, float(value)),)
    return Sample(at, dict(rows))


CALM = {"num_requests_running": 2, "num_requests_waiting": 0, "kv_cache_usage_perc": 0.3}
CACHE = {
    "gpu_memory_utilization": "0.9",
    "num_gpu_blocks": "100",
    "cache_dtype": "auto",
    "enable_prefix_caching": "True",
}


def causes(last: Sample, first: Sample | None = None) -> list[str]:
    return [found.cause for found in judge(Window(last, first))[0]]


def flags(last: Sample, first: Sample | None = None) -> dict[str, str | None]:
    found = judge(Window(last, first))[0][0]
    return {k: v for fix in found.fixes if fix.launch for k, v in fix.launch.set.items()}


def test_the_recorded_metrics_of_an_idle_server_bring_no_finding() -> None:
    found = read(Reply(method="GET", url="http://x/metrics", status=200, body=RECORDED.read_bytes()), at=0)
    assert found is not None
    health = examine(found)
    assert health.findings == ()
    assert (health.figures.kv_cache_usage, health.figures.running) == (0.0, 0.0)
    assert health.not_evaluated == {"engine-stalled": "a second sample (--watch SECONDS)"}


def test_what_is_absent_is_not_evaluated() -> None:
    health = examine(sample(other=1))
    assert health.findings == ()
    assert set(health.not_evaluated) == {name for name, _ in RULES}
    assert health.figures.kv_cache_usage is None


def test_a_full_cache_with_waiting_requests_names_the_knobs() -> None:
    last = sample(num_requests_running=40, num_requests_waiting=12, kv_cache_usage_perc=0.99, cache_config_info=CACHE)
    assert causes(last) == ["oom-kv"]
    assert flags(last) == {"--gpu-memory-utilization": "0.93", "--kv-cache-dtype": "fp8"}


def test_a_full_cache_that_nobody_waits_for_is_good() -> None:
    assert causes(sample(**CALM | {"kv_cache_usage_perc": 0.99})) == []


def test_preemptions_in_the_window_name_fewer_sequences() -> None:
    first = sample(**CALM, num_preemptions_total=5, request_success_total=100)
    last = sample(10, **CALM | {"num_requests_running": 50}, num_preemptions_total=9, request_success_total=110)
    assert causes(last, first) == ["oom-kv"]
    assert flags(last, first)["--max-num-seqs"] == "40"


@pytest.mark.parametrize(("pushed", "finished", "found"), [(1, 1000, []), (80, 1000, ["oom-kv"]), (0, 0, [])])
def test_preemptions_since_the_start_count_from_a_share_on(pushed: int, finished: int, found: list[str]) -> None:
    assert causes(sample(**CALM, num_preemptions_total=pushed, request_success_total=finished)) == found


def test_a_queue_with_room_in_the_cache_names_more_sequences() -> None:
    last = sample(num_requests_running=8, num_requests_waiting=30, kv_cache_usage_perc=0.1)
    assert causes(last) == ["connection-timeout"]
    assert flags(last) == {"--max-num-seqs": "38"}


def test_a_queue_that_was_not_there_before_is_no_finding() -> None:
    last = sample(5, num_requests_running=8, num_requests_waiting=30, kv_cache_usage_perc=0.1)
    assert causes(last, sample(**CALM)) == []


def test_late_first_tokens() -> None:
    slow = ((1.0, 5), (20.0, 50), (40.0, 100), (float("inf"), 100))
    last = sample(
        **CALM, time_to_first_token_seconds=slow, request_queue_time_seconds=((1.0, 100), (float("inf"), 100))
    )
    assert causes(last) == ["connection-timeout"]
    assert flags(last) == {"--max-num-batched-tokens": "8192"}


@pytest.mark.parametrize(("gone", "finished", "found"), [(1, 19, []), (1, 100, []), (10, 100, ["connection-timeout"])])
def test_aborted_requests(gone: int, finished: int, found: list[str]) -> None:
    rows = (({"finished_reason": "abort"}, float(gone)), ({"finished_reason": "stop"}, float(finished - gone)))
    base = sample(**CALM)
    assert causes(Sample(0, {**base.rows, "vllm:request_success_total": rows})) == found


def test_an_engine_that_makes_no_token_hangs() -> None:
    still = {**CALM, "generation_tokens_total": 100, "prompt_tokens_total": 100}
    assert causes(sample(12, **still), sample(0, **still)) == ["engine-hang"]
    assert causes(sample(5, **still), sample(0, **still)) == []
    assert causes(sample(12, **still | {"generation_tokens_total": 101}), sample(0, **still)) == []


def test_a_restart_between_two_samples_gives_no_rate() -> None:
    first, last = sample(0, generation_tokens_total=100), sample(10, generation_tokens_total=5)
    assert rate(first, last, "vllm:generation_tokens") is None


def test_a_rate() -> None:
    first, last = sample(0, generation_tokens_total=100), sample(10, generation_tokens_total=350)
    assert rate(first, last, "vllm:generation_tokens") == 25.0
    assert figures(Window(last, first)).generation_tokens_per_second == 25.0


@pytest.mark.parametrize(("share", "value"), [(0.5, 1.0), (0.25, 0.5), (0.75, 2.0), (0.999, 3.0)])
def test_percentiles_lie_straight_between_the_bounds(share: float, value: float) -> None:
    rows = ((1.0, 50.0), (3.0, 100.0 if share < 0.9 else 90.0), (float("inf"), 100.0))
    assert percentile(rows, share) == pytest.approx(value)


def test_no_observation_has_no_percentile() -> None:
    assert percentile(((1.0, 0.0), (float("inf"), 0.0)), 0.5) is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_a_percentile_lies_within_the_bucket_of_the_value(values: list[float], share: float) -> None:
    bounds = [1.0, 5.0, 10.0, 50.0, 100.0, float("inf")]
    rows = tuple((bound, float(sum(v <= bound for v in values))) for bound in bounds)
    found = percentile(rows, share)
    assert found is not None
    assert sum(v <= found for v in values) <= len(values)
    reached = next(bound for bound, count in rows if count >= share * len(values))
    assert found <= reached


@given(st.binary(max_size=500))
def test_any_bytes_after_a_good_line_are_read_or_given_up(noise: bytes) -> None:
    body = b"vllm:num_requests_running 1.0\n" + noise
    found = read(Reply(method="GET", url="http://x", status=200, body=body))
    assert found is None or found.rows


def test_too_many_samples_are_given_up() -> None:
    body = b"".join(b'vllm:x{a="%d"} 1\n' % n for n in range(40_000))
    assert read(Reply(method="GET", url="http://x", status=200, body=body)) is None


def test_a_watch_samples_until_its_end() -> None:
    count = iter(range(1000))

    def handler(_: Asked) -> bytes:
        body = f"# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total {10 * next(count)}.0\n"
        return response(200, body.encode(), "text/plain")

    shown: list[Figures] = []
    with Scripted({"/metrics": handler}) as server:
        visit = Visit(server.base, Options(timeout_seconds=5))
        found = watch(visit, 1.2, shown.append)
        visit.session.close()
    assert not isinstance(found, Reply)
    assert (found.samples, len(shown)) == (3, 2)
    assert found.figures.generation_tokens_per_second is not None


def test_a_server_whose_engine_dies_in_the_walk() -> None:
    asked = iter([200, 503])
    with Scripted({"/health": lambda _: response(next(asked))}) as server:
        found = walk(server.base, Options(timeout_seconds=5)).findings
    assert [(f.cause, f.check) for f in found] == [("engine-dead", "health")]
