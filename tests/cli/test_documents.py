"""Every format on a real diagnosis, where it was asked for; and snapshots that travel."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.cli.calling import HEALTHY, MOVING_CHECKS, doctor

WRONG = (
    "--",
    "vllm",
    "serve",
    "Qwen/Qwen2.5-7B-Instruct",
    "--gpu-memory-utilisation",
    "0.9",
    "--tensor-parallel-size",
    "2",
)


def test_json_is_alone_on_standard_output_and_has_the_keys_of_the_contract() -> None:
    done = doctor("run", "--snapshot", HEALTHY, "--format", "json", *WRONG)
    report = json.loads(done.stdout)
    assert list(report) == ["schema", "doctor", "verdict", "findings", "checks", "launch", "plan"]
    assert report["schema"] == "vllm-doctor/report/1"
    assert report["verdict"] == "error"
    for finding in report["findings"]:
        assert {"cause", "check", "severity", "confidence", "title", "evidence", "fixes"} <= set(finding)
        for fix in finding["fixes"]:
            assert {"title", "command", "launch", "settings", "automatic"} <= set(fix)
    assert {c["status"] for c in report["checks"]} <= {"passed", "found", "unknown", "skipped", "crashed"}
    assert [c for c in report["checks"] if c["status"] in ("unknown", "skipped", "crashed") and not c["reason"]] == []
    assert set(report["launch"]) == {"given", "corrected"}


def test_the_corrected_command_comes_out_clean() -> None:
    done = doctor("run", "--snapshot", HEALTHY, "--format", "json", *WRONG)
    corrected = json.loads(done.stdout)["launch"]["corrected"]
    assert corrected is not None
    assert "--gpu-memory-utilisation" not in corrected
    again = doctor("run", "--snapshot", HEALTHY, "--format", "json", "--fail-on", "warning", "--", *corrected.split())
    assert again.returncode == 0, again.stdout


def test_junit_has_one_case_a_check(tmp_path: Path) -> None:
    path = tmp_path / "doctor.xml"
    done = doctor("run", "--snapshot", HEALTHY, "--format", "junit", "-o", path, *WRONG)
    assert (done.returncode, done.stdout) == (1, "")
    root = ElementTree.parse(path).getroot()
    report = json.loads(doctor("run", "--snapshot", HEALTHY, "--format", "json", *WRONG).stdout)
    assert sorted(case.get("name", "") for case in root.iter("testcase")) == sorted(c["id"] for c in report["checks"])


def test_github_writes_annotations_and_the_step_summary(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# before\n", encoding="utf-8")
    variables = {"GITHUB_STEP_SUMMARY": str(summary)}
    done = doctor("run", "--snapshot", HEALTHY, "--format", "github", *WRONG, variables=variables)
    assert "::error " in done.stdout
    assert summary.read_text(encoding="utf-8").startswith("# before\n")
    assert "bad-flag" in summary.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["text", "json", "junit", "github", "html", "markdown"])
def test_a_report_to_a_file_leaves_standard_output_empty(tmp_path: Path, name: str) -> None:
    path = tmp_path / "report"
    done = doctor("run", "--snapshot", HEALTHY, "--format", name, "-o", path, *WRONG)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert "bad-flag" in path.read_text(encoding="utf-8")


def test_a_snapshot_of_this_host_is_diagnosed_like_the_host(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    assert doctor("snapshot", "-o", path).returncode == 0
    here = json.loads(doctor("run", "--format", "json").stdout)
    there = json.loads(doctor("run", "--snapshot", path, "--format", "json").stdout)

    def said(report: dict) -> list[tuple[str, str, str]]:  # type: ignore[type-arg]
        return [(f["cause"], f["check"], f["severity"]) for f in report["findings"] if f["check"] not in MOVING_CHECKS]

    def statuses(report: dict) -> list[tuple[str, str]]:  # type: ignore[type-arg]
        return [(c["id"], c["status"]) for c in report["checks"] if c["id"] not in MOVING_CHECKS]

    assert said(there) == said(here)
    assert statuses(there) == statuses(here)


def test_a_config_file_of_the_machine_of_the_snapshot_is_not_missing_here() -> None:
    launch = ("vllm", "serve", "M", "--config", "there.yaml")
    done = doctor("run", "--snapshot", HEALTHY, "--format", "json", "--", *launch)
    found = json.loads(done.stdout)
    checks = {check["id"]: check for check in found["checks"]}
    assert (done.returncode, checks["flag-value"]["status"]) == (0, "unknown")
    assert "there.yaml is on the machine of the snapshot" in checks["flag-value"]["reason"]
