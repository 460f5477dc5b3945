"""Facts made to hurt: the diagnosis ends in bounded time, says what it could not judge, and stays small."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.cli.calling import HEALTHY
from tests.security.calling import measured
from vllm_doctor import diagnose
from vllm_doctor.check import check
from vllm_doctor.finding import Finding, info
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot, read


@check("test-endless", causes=("bad-flag",), needs=())
def endless(_snapshot: Snapshot) -> Iterator[Finding]:
    """A check that never ends."""
    yield info("bad-flag", "one", evidence=("seen",))
    while True:
        pass


@check("test-gushing", causes=("bad-flag",), needs=())
def gushing(_snapshot: Snapshot) -> Iterator[Finding]:
    """A check that finds without end."""
    while True:
        yield info("bad-flag", "one", evidence=("seen",))


def test_a_check_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "MAXIMUM_SECONDS", 0.2)
    found = diagnose.diagnose(read(HEALTHY), Registry((endless, gushing)))
    slow, much = found.checks
    assert slow.seconds < 5
    assert len(found.findings) == 1 + diagnose.MAXIMUM_FINDINGS
    assert much.status is diagnose.Status.FOUND


def test_hundreds_of_wrong_flags_cost_little() -> None:
    flags = [word for number in range(300) for word in (f"--unknwn-flag-{number}", "x")]
    call = measured("run", "--snapshot", HEALTHY, "--", "vllm", "serve", "org/name", *flags)
    assert call.code == 1
    assert call.seconds < 45
    assert call.peak_mib < 120


@pytest.mark.parametrize("name", ["deep", "object", "number", "cut", "long"])
def test_a_hostile_snapshot_is_one_line_or_a_report(tmp_path: Path, name: str) -> None:
    healthy = HEALTHY.read_text(encoding="utf-8")
    document = json.loads(healthy)
    document["environment"]["search_path"] = ["token=" * 4_000_000]
    texts = {
        "deep": "[" * 5_000_000,
        "object": '{"schema": "vllm-doctor/snapshot/1", "host": ' + '{"a":' * 200_000,
        "number": healthy.replace('"driver_version"', f'"x": {"9" * 1_000_000}, "driver_version"', 1),
        "cut": healthy[:-200],
        "long": msgspec.json.encode(document).decode(),
    }
    path = tmp_path / "s.json"
    path.write_text(texts[name], encoding="utf-8")
    call = measured("run", "--snapshot", path, "--format", "json")
    assert call.code in (0, 2)
    assert call.seconds < 30
    assert call.peak_mib < 120
    if call.code == 2:
        assert call.output.count("\n") == 1
