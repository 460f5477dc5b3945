"""What was reported against the plan, and the file that mends later plans of the same host."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.cli.calling import FIXTURES
from vllm_doctor.errors import InputFileError
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.memory.measured import BAND_BYTES, Measured
from vllm_doctor.memory.planning import Planned, of_launch, of_snapshot
from vllm_doctor.snapshot import read as read_snapshot
from vllm_doctor.trial import calibration
from vllm_doctor.trial.calibration import Calibration, Entry
from vllm_doctor.trial.reported import GIB, Reported

SNAPSHOT = read_snapshot(FIXTURES / "snapshots" / "model-llama-h100.json")
WHEN = "2026-11-22T10:00:00+00:00"


def planned(flags: str = "", measured: Measured | None = None) -> Planned:
    assert SNAPSHOT.launch is not None
    launch = parse_line(f"vllm serve {SNAPSHOT.launch.model} {flags}")
    found = of_snapshot(structs.replace(SNAPSHOT, launch=launch))
    assert isinstance(found, Planned)
    return of_launch(launch, found.config, found.device, found.release, found.gpus, measured)


def entry(more_bytes: int, flags: str = "") -> Entry:
    plan = planned(flags)
    found = calibration.entry_of(plan, Reported(kv_cache_bytes=plan.plan.kv_cache.typical + more_bytes), WHEN)
    assert found is not None
    return found


def taken(of: Calibration, flags: str = "") -> Planned:
    plan = planned(flags)
    return planned(flags, of.measured(plan.name, plan.device, plan.release))


def test_planned_stands_beside_reported() -> None:
    plan = planned()
    reported = Reported(weights_bytes=15 * GIB, tokens=400_000, max_concurrency=3.5)
    rows = {(row.name, row.unit): (row.planned, row.reported) for row in calibration.compare(reported, plan)}
    assert rows == {
        ("weights", "bytes"): (plan.plan.weights.per_gpu_bytes, 15 * GIB),
        ("KV cache", "tokens"): (plan.plan.tokens, 400_000),
        ("requests at once", "requests"): (plan.plan.max_concurrency, 3.5),
    }
    assert [row.planned for row in calibration.compare(reported, None)] == [None, None, None]


@pytest.mark.parametrize("more_bytes", [GIB, -GIB // 2, 0])
def test_the_next_plan_of_the_same_shape_is_what_was_measured(more_bytes: int) -> None:
    kept = Calibration().with_entry(entry(more_bytes))
    before, after = planned().plan, taken(kept).plan
    assert after.kv_cache.typical == before.kv_cache.typical + more_bytes
    assert after.kv_cache.high - after.kv_cache.low <= before.kv_cache.high - before.kv_cache.low
    assert after.kv_cache.high - after.kv_cache.typical >= BAND_BYTES
    assert after.measured is not None


@pytest.mark.parametrize(
    "flags", ["--max-num-seqs 8", "--enforce-eager", "--max-num-batched-tokens 4096", "--dtype half"]
)
def test_another_shape_is_planned_as_ever(flags: str) -> None:
    kept = Calibration().with_entry(entry(GIB))
    assert taken(kept, flags).plan == planned(flags).plan


def test_another_context_is_of_the_same_shape() -> None:
    kept = Calibration().with_entry(entry(GIB))
    assert taken(kept, "--max-model-len 4096").plan.measured is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "another"},
        {"gpu": "NVIDIA T4"},
        {"gpu_memory_bytes": 1},
        {"release": "0.1.0"},
        {"model": "other/model"},
    ],
)
def test_what_was_measured_elsewhere_is_not_taken(changes: dict[str, object]) -> None:
    plan = planned()
    kept = Calibration().with_entry(structs.replace(entry(GIB), **changes))
    assert kept.measured(plan.name, plan.device, plan.release) is None


def test_the_newest_start_replaces_the_older_one_of_its_kind() -> None:
    kept = Calibration().with_entry(entry(GIB)).with_entry(entry(GIB, "--enforce-eager")).with_entry(entry(2 * GIB))
    assert [each.delta_bytes for each in kept.entries] == [GIB, 2 * GIB]
    many = kept
    for number in range(calibration.MAXIMUM_ENTRIES + 5):
        many = many.with_entry(structs.replace(entry(GIB), model=f"m{number}"))
    assert len(many.entries) == calibration.MAXIMUM_ENTRIES


def test_nothing_is_kept_where_nothing_can_be_learnt() -> None:
    fixed, plain = planned("--kv-cache-memory-bytes 4G"), planned()
    assert calibration.entry_of(fixed, Reported(kv_cache_bytes=GIB), WHEN) is None
    assert calibration.entry_of(plain, Reported(), WHEN) is None
    assert calibration.entry_of(plain, Reported(kv_cache_bytes=500 * GIB), WHEN) is None


def test_the_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    kept = Calibration().with_entry(entry(GIB)).with_entry(entry(-GIB, "--enforce-eager"))
    path = tmp_path / "here.json"
    calibration.write(path, kept)
    assert calibration.read(path) == kept
    assert [each.name for each in tmp_path.iterdir()] == ["here.json"]


def _document() -> dict[str, object]:
    import msgspec

    found: dict[str, object] = msgspec.to_builtins(Calibration().with_entry(entry(GIB)))
    return found


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut off"),
        pytest.param('{"schema": "vllm-doctor/calibration/2"}', id="another version"),
        pytest.param('{"entries": [{"host": 3}]}', id="of other types"),
        pytest.param("[" * 100_000, id="nested without end"),
        pytest.param(json.dumps({"entries": _document()["entries"] * 300}), id="too many"),  # type: ignore[operator]
        pytest.param(json.dumps(_document()).replace("reported_kv_cache_bytes\": ", "reported_kv_cache_bytes\": 9999"),
                     id="absurd"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputFileError, match=r"c\.json") as problem:
        calibration.read(path)
    assert "\n" not in str(problem.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    with contextlib.suppress(InputFileError):
        assert isinstance(calibration.read(path), Calibration)
