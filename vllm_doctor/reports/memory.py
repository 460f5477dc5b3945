"""The memory plan of a launch as the reports show it: a sentence, the parts of the card, requests by context."""

from collections.abc import Iterator

from msgspec import Struct

from vllm_doctor.diagnose import Diagnosis
from vllm_doctor.finding import Severity
from vllm_doctor.memory import capacity, drawing
from vllm_doctor.memory.estimate import gib
from vllm_doctor.memory.plan import Plan, Verdict
from vllm_doctor.memory.planning import Planned

HEADING = "Memory of each GPU"


class Part(Struct, frozen=True):
    """A part of the card: its name, its size in words, the band or what sets it, and its share in percent."""

    name: str
    size: str
    told: str
    percent: float


class Table(Struct, frozen=True):
    """Requests at once by context: headings, and rows of a length, its cells, and whether it is the one asked for."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], bool], ...]


def sentence(diagnosis: Diagnosis, planned: Planned) -> str:
    """The plan's verdict; where something else ends the launch, that it is about memory alone."""
    told = drawing.sentence(planned.plan)
    if planned.plan.verdict is Verdict.FITS and diagnosis.worst is Severity.ERROR:
        return f"As for memory alone: {told[0].lower()}{told[1:]}"
    return told


def cache_sentence(planned: Planned) -> str:
    """What the cache holds."""
    return capacity.sentence(planned.plan)


def parts(planned: Planned) -> tuple[Part, ...]:
    """What takes the memory, and what is left; more than the card has is scaled down to it."""
    return tuple(_parts(planned.plan))


def _parts(plan: Plan) -> Iterator[Part]:
    left = drawing.rest(plan)
    taken = drawing.parts(plan)
    whole = max(1, plan.device.total_bytes, sum(p.estimate.typical for p in taken))
    used = 0.0
    for part in taken:
        percent = min(100.0 - used, 100 * part.estimate.typical / whole)
        used += percent
        told = drawing.band(part.estimate)
        yield Part(part.name, gib(part.estimate.typical), f"{told} GiB" if told else "", round(percent, 2))
    yield Part(left.name, gib(left.size_bytes), left.told, round(max(0.0, 100 - used), 2))


def edge(planned: Planned) -> float | None:
    """Where the card ends, in percent of the bar; None where all fits into it."""
    plan = planned.plan
    taken = sum(part.estimate.typical for part in drawing.parts(plan))
    return round(100 * plan.device.total_bytes / taken, 2) if taken > plan.device.total_bytes else None


def table(planned: Planned) -> Table:
    """How many requests fit at once, by their length."""
    found = planned.capacities()
    rows = ((f"{r.length:,}", tuple(capacity.times_in_words(t) for t in r.times), r.asked) for r in found.rows)
    return Table(found.headings, tuple(rows))
