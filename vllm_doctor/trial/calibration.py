"""What vLLM reported of memory against the plan of the launch, and the file that later plans of this host take."""

import platform
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from vllm_doctor import redact
from vllm_doctor.errors import InputFileError
from vllm_doctor.memory.facts import Device, Release
from vllm_doctor.memory.measured import Measured, Shape, shape_of
from vllm_doctor.memory.planning import Planned
from vllm_doctor.snapshot import read_bounded
from vllm_doctor.trial.reported import GIB, Reported

SCHEMA = "vllm-doctor/calibration/1"

# One entry takes 600 bytes; the oldest go when there are more than this.
MAXIMUM_ENTRIES = 200
MAXIMUM_BYTES = 2**20

# More than this is no misestimate but another launch or card than was planned.
MAXIMUM_DELTA_BYTES = 64 * GIB

# From here on the peak of the activations that is logged holds the estimate of the graphs (v1/worker/gpu_worker.py).
_GRAPHS_IN_PEAK: Release = (0, 20, 0)


class Row(Struct, frozen=True, kw_only=True):
    """One figure, planned (None without a plan) and reported; `unit` is bytes, tokens or requests."""

    name: str
    unit: str
    planned: float | None
    reported: float


class Entry(Struct, frozen=True, kw_only=True):
    """One start: where, of what, and by how many bytes a GPU its KV cache was larger than planned (or smaller)."""

    host: str
    gpu: str
    gpu_memory_bytes: int
    release: str
    model: str
    shape: Shape
    planned_kv_cache_bytes: int
    reported_kv_cache_bytes: int
    taken_at: str

    @property
    def delta_bytes(self) -> int:
        """What is to be added to a plan of the same shape."""
        return self.reported_kv_cache_bytes - self.planned_kv_cache_bytes


class Calibration(Struct, frozen=True, kw_only=True):
    """The file: entries of any number of hosts, the newest last."""

    schema: str = SCHEMA
    entries: tuple[Entry, ...] = ()

    def with_entry(self, entry: Entry) -> "Calibration":
        """The calibration with the entry in place of an older one of the same start."""
        kept = tuple(old for old in self.entries if _key(old) != _key(entry))
        return structs.replace(self, entries=(*kept, entry)[-MAXIMUM_ENTRIES:])

    def measured(self, model: str, device: Device, release: Release | None) -> Measured | None:
        """What this host measured last of that model on that card with that release (None: any); None if nothing."""
        fitting = [
            entry
            for entry in self.entries
            if (entry.host, entry.gpu, entry.gpu_memory_bytes) == (this_host(), device.name, device.total_bytes)
            and entry.model == model
            and release_text(release) in (entry.release, "")
        ]
        if not fitting:
            return None
        last = fitting[-1]
        told = (
            f"calibrated by a start of {last.taken_at[:10]}: the KV cache was {_signed(last.delta_bytes)} than planned"
        )
        return Measured(shape=last.shape, delta_bytes=last.delta_bytes, told=told)


def this_host() -> str:
    """The name of this machine, as entries have it."""
    return platform.node()


def release_text(release: Release | None) -> str:
    """A release as entries have it."""
    return "" if release is None else ".".join(map(str, release))


def _signed(size_bytes: int) -> str:
    return f"{abs(size_bytes) / GIB:.2f} GiB {'larger' if size_bytes >= 0 else 'smaller'}"


def _key(entry: Entry) -> tuple[object, ...]:
    return (entry.host, entry.gpu, entry.gpu_memory_bytes, entry.release, entry.model, entry.shape)


def compare(reported: Reported, planned: Planned | None) -> tuple[Row, ...]:
    """Planned beside reported, figure by figure; without a plan only what was reported."""
    expected: dict[str, float] = {} if planned is None else _expected(planned)
    return tuple(
        Row(name=name, unit=unit, planned=expected.get(field), reported=seen)
        for field, name, unit in FIGURES
        if (seen := getattr(reported, field)) is not None
    )


FIGURES = (
    ("weights_bytes", "weights", "bytes"),
    ("consumed_bytes", "weights and outside of torch", "bytes"),
    ("non_torch_bytes", "outside of torch", "bytes"),
    ("activation_bytes", "activation peak", "bytes"),
    ("graphs_bytes", "CUDA graphs", "bytes"),
    ("kv_cache_bytes", "KV cache", "bytes"),
    ("tokens", "KV cache", "tokens"),
    ("max_concurrency", "requests at once", "requests"),
)


def _expected(planned: Planned) -> dict[str, float]:
    plan = planned.plan
    return {
        "weights_bytes": plan.weights.per_gpu_bytes,
        "consumed_bytes": plan.weights.per_gpu_bytes + plan.other.typical,
        "non_torch_bytes": plan.other.typical,
        "activation_bytes": _peak(planned),
        "graphs_bytes": plan.graphs_captured.typical,
        "kv_cache_bytes": plan.kv_cache.typical,
        "tokens": plan.tokens,
        "max_concurrency": plan.max_concurrency,
    }


def _peak(planned: Planned) -> int:
    plan = planned.plan
    graphs = planned.release is None or planned.release >= _GRAPHS_IN_PEAK
    return plan.activation.typical + (plan.graphs.typical if graphs else 0)


def entry_of(planned: Planned, reported: Reported, taken_at: str) -> Entry | None:
    """What is kept of a start; None where there is nothing to learn: a fixed cache, no figure, or another card."""
    size, fixed = reported.kv_cache_bytes, planned.settings.kv_cache_memory_bytes is not None
    expected = planned.plan.kv_cache.typical
    if size is None or fixed or planned.plan.measured is not None or abs(size - expected) > MAXIMUM_DELTA_BYTES:
        return None
    return Entry(
        host=this_host(),
        gpu=planned.device.name,
        gpu_memory_bytes=planned.device.total_bytes,
        release=release_text(planned.release),
        model=redact.text(planned.name),
        shape=shape_of(planned.settings, planned.plan.defaults),
        planned_kv_cache_bytes=expected,
        reported_kv_cache_bytes=size,
        taken_at=taken_at,
    )


def read(path: Path) -> Calibration:
    """The file; raises InputFileError where it is missing, too large, or holds anything but sound entries."""
    data = read_bounded(path, MAXIMUM_BYTES)
    try:
        found = msgspec.json.decode(data, type=Calibration)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise _wrong(path, redact.line(str(problem), 200)) from None
    if found.schema != SCHEMA:
        raise _wrong(path, f"its schema is {redact.line(found.schema, 80)!r}, this reads {SCHEMA!r}")
    if len(found.entries) > MAXIMUM_ENTRIES or any(map(_is_absurd, found.entries)):
        raise _wrong(path, f"an entry is off by more than {MAXIMUM_DELTA_BYTES // GIB} GiB, or there are too many")
    return found


def _wrong(path: Path, why: str) -> InputFileError:
    return InputFileError(f"{path}: not a calibration: {why}", "write it with `vllm-doctor verify --calibrate FILE`")


def _is_absurd(entry: Entry) -> bool:
    sizes = (entry.planned_kv_cache_bytes, entry.reported_kv_cache_bytes)
    return abs(entry.delta_bytes) > MAXIMUM_DELTA_BYTES or any(abs(size) > 2**50 for size in sizes)


def write(path: Path, calibration: Calibration) -> None:
    """Write the file, whole or not at all; raises InputFileError where it cannot be written."""
    document = msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n"
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_bytes(document)
        beside.replace(path)
    except OSError as problem:
        raise InputFileError(f"{path}: {problem.strerror}", "name a file that can be written") from None
