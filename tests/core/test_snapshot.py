"""The snapshot goes to a file and comes back; what is no snapshot is refused with one line."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_doctor.errors import InputFileError
from vllm_doctor.snapshot import MAXIMUM_BYTES, SCHEMA, read, write

FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "snapshots"


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.json")), ids=lambda p: p.stem)
def test_a_snapshot_survives_the_file(path: Path, tmp_path: Path) -> None:
    facts = read(path)
    write(facts, tmp_path / "again.json")
    assert read(tmp_path / "again.json") == facts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not whole JSON"),
        ("[]", "not a snapshot"),
        ("{}", "not a snapshot"),
        ('{"schema": "vllm-doctor/snapshot/1"}', "not a snapshot"),
        ('{"schema": "vllm-doctor/snapshot/2"}', "reads 'vllm-doctor/snapshot/1'"),
        ('{"schema": "vllm-doctor/snapshot/0"}', "reads 'vllm-doctor/snapshot/1'"),
        ('{"schema": "\\u001b[2J"}', "schema ''"),
        ('{"schema": "x", "a": ' + "[" * 100_000, "not whole JSON"),
    ],
)
def test_what_is_no_snapshot_is_refused_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputFileError) as caught:
        read(path)
    assert says in str(caught.value) or "nested deeper" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_snapshot_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = (FIXTURES / "healthy-h100.json").read_bytes()
    path = tmp_path / "cut.json"
    for length in range(0, len(whole) - 2, 997):
        path.write_bytes(whole[:length])
        with pytest.raises(InputFileError):
            read(path)


def test_a_file_that_is_too_large_or_no_file_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(MAXIMUM_BYTES + 1)
    for path, says in ((large, "larger than"), (tmp_path, "not a regular file"), (tmp_path / "none", "No such file")):
        with pytest.raises(InputFileError, match=says):
            read(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_are_a_snapshot_or_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.json"
    path.write_bytes(data)
    with pytest.raises(InputFileError):
        read(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_snapshot_with_one_value_exchanged_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    document = msgspec.json.decode((FIXTURES / "healthy-h100.json").read_bytes())
    section = data.draw(st.sampled_from(["host", "gpus", "environment", "servers", "launch", "model"]))
    inner = document[section] if isinstance(document.get(section), dict) else document
    key = data.draw(st.sampled_from(sorted(inner)))
    inner[key] = data.draw(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just([[]]), st.just({})
        )
    )
    path = tmp_path / "changed.json"
    path.write_bytes(msgspec.json.encode(document))
    try:
        facts = read(path)
    except InputFileError as problem:
        assert "\n" not in str(problem)
    else:
        assert facts.schema == SCHEMA
