"""What /metrics tells: the gauges, counters and histograms of vLLM, read with prometheus_client's own parser."""

import math
import time
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from vllm_doctor.client.replies import Reply
from vllm_doctor.facts import Metric

MAXIMUM_SAMPLES = 20_000

Labels = frozenset[tuple[str, str]]


class Sample(Struct, frozen=True):
    """The samples of one moment: name -> its rows, and the time in seconds of a steady clock."""

    at: float
    rows: Mapping[str, tuple[tuple[Mapping[str, str], float], ...]]

    def total(self, *names: str, **labels: str) -> float | None:
        """The sum over engines and models of the first of these names that is there; None where none is.

        A counter has `_total` at its end in vLLM since 0.6 (prometheus_client appends it); gauges have not.
        """
        for name in names:
            for spelled in (name, f"{name}_total"):
                rows = [v for found, v in self.rows.get(spelled, ()) if _has(found, labels) and math.isfinite(v)]
                if rows:
                    return sum(rows)
        return None

    def largest(self, *names: str) -> float | None:
        """The largest over engines: a share is not to be summed."""
        for name in names:
            rows = [value for _, value in self.rows.get(name, ()) if math.isfinite(value)]
            if rows:
                return max(rows)
        return None

    def labels(self, name: str) -> Mapping[str, str]:
        """The labels of an info metric; empty where it is absent."""
        rows = self.rows.get(name, ())
        return rows[0][0] if rows else {}

    def histogram(self, name: str) -> tuple[tuple[float, float], ...]:
        """(upper bound, cumulative count) over all engines, ascending; empty where it is absent."""
        sums: dict[float, float] = {}
        for found, value in self.rows.get(f"{name}_bucket", ()):
            bound = _number(found.get("le", ""))
            if bound is not None and math.isfinite(value):
                sums[bound] = sums.get(bound, 0.0) + value
        return tuple(sorted(sums.items()))


def _has(found: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(found.get(name) == value for name, value in labels.items())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def read(reply: Reply, at: float | None = None) -> Sample | None:
    """The samples of an answer of /metrics; None where it is no such text or holds nothing of vLLM."""
    from prometheus_client.parser import text_string_to_metric_families

    if not reply.ok:
        return None
    rows: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    count = 0
    try:
        for family in text_string_to_metric_families(reply.body.decode("utf-8", "replace")):
            if not family.name.startswith("vllm:"):
                continue
            for sample in family.samples:
                rows.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
                count += 1
            if count > MAXIMUM_SAMPLES:
                return None
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    if not rows:
        return None
    return Sample(time.monotonic() if at is None else at, {name: tuple(found) for name, found in rows.items()})


def facts(sample: Sample, names: Collection[str]) -> tuple[Metric, ...]:
    """The finite rows of these metrics, with or without the endings `_total` and `_bucket`, as facts."""
    return tuple(
        Metric(name=name, labels=dict(labels), value=value)
        for name, rows in sample.rows.items()
        if name.removesuffix("_total").removesuffix("_bucket") in names
        for labels, value in rows
        if math.isfinite(value)
    )


def from_facts(metrics: Iterable[Metric]) -> Sample:
    """The sample that those facts were taken of; its time is lost."""
    rows: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for metric in metrics:
        rows.setdefault(metric.name, []).append((metric.labels, metric.value))
    return Sample(0.0, {name: tuple(found) for name, found in rows.items()})


def rate(first: Sample, last: Sample, *names: str, **labels: str) -> float | None:
    """The increase per second between two samples; None where it is absent or the server was started anew between."""
    old, new = first.total(*names, **labels), last.total(*names, **labels)
    seconds = last.at - first.at
    if old is None or new is None or seconds <= 0 or new < old:
        return None
    return (new - old) / seconds


def increase(first: Sample | None, last: Sample, name: str) -> tuple[tuple[float, float], ...]:
    """The histogram of what came between two samples; since the start without a first one."""
    new = last.histogram(name)
    old = dict(first.histogram(name)) if first is not None else {}
    grown = tuple((bound, count - old.get(bound, 0.0)) for bound, count in new)
    return new if any(count < 0 for _, count in grown) else grown


def percentile(buckets: Iterable[tuple[float, float]], share: float) -> float | None:
    """The value below which that share lies, straight between the bounds as Prometheus' histogram_quantile does.

    None without observations; the last finite bound where the value lies above it.
    """
    rows = tuple(buckets)
    total = rows[-1][1] if rows else 0.0
    if total <= 0:
        return None
    below, lower = 0.0, 0.0
    for bound, count in rows:
        if count >= share * total:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * ((share * total - below) / (count - below) if count > below else 1.0)
        below, lower = count, bound
    return lower
