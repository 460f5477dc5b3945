"""What the checks offer as fixes: the exact commands and launch edits, not only that something was found."""

import msgspec

from tests.cases_reader import Case
from vllm_doctor.check import Check
from vllm_doctor.diagnose import run_check
from vllm_doctor.finding import Confidence, Finding, LaunchEdit, Severity
from vllm_doctor_checks.driver import driver_cuda
from vllm_doctor_checks.gpu_health import fabric_manager
from vllm_doctor_checks.gpu_memory import gpu_busy, stray_process
from vllm_doctor_checks.gpu_support import gpu_feature

LAUNCH = "vllm serve Qwen/Qwen2.5-7B-Instruct"
FREE = 85516615680
HELD = 64000000000


def process(pid: int, role: str) -> dict[str, object]:
    known = {"visible": True, "user": "ann", "command": "VLLM::EngineCore", "age_seconds": 90.0, "container": None}
    return {"pid": pid, "used_bytes": HELD, "role": role, "parent_pid": 1, **known}


def finding(check: Check, facts: dict[str, object], launch: str | None = LAUNCH) -> Finding:
    row: dict[str, object] = {"id": "a test", "fixture": "healthy-h100", "set": facts}
    if launch is not None:
        row["launch"] = launch
    [found] = run_check(check, Case(check.id, "found", row).snapshot())[0]
    return found


def test_the_kill_names_each_orphan_once_and_is_never_automatic() -> None:
    held = [process(11, "vllm-orphan"), process(12, "vllm-orphan"), process(11, "vllm-orphan"), process(13, "other")]
    found = finding(stray_process, {"gpus.devices.0.processes": held}, launch=None)
    [fix] = found.fixes
    assert (fix.command, fix.automatic) == (("kill", "11", "12"), False)


def test_the_orphan_comes_first_then_the_share_that_fits() -> None:
    facts: dict[str, object] = {
        "gpus.devices.0.memory_free_bytes": FREE - HELD,
        "gpus.devices.0.processes": [process(11, "vllm-orphan")],
    }
    found = finding(gpu_busy, facts)
    assert found.fixes[0].command == ("kill", "11")
    assert found.fixes[1].launch == LaunchEdit(set={"--gpu-memory-utilization": "0.24"})
    assert found.fixes[1].automatic
    assert "pid 11 of ann, 90 seconds old, parent 1 holds 59.6 GiB" in " ".join(found.evidence)


def test_another_gpu_that_is_free_is_named() -> None:
    gpu = msgspec.to_builtins(Case("gpu-busy", "quiet", {"id": "x", "fixture": "healthy-h100"}).snapshot().gpus)
    first, second = dict(gpu["devices"][0]), dict(gpu["devices"][0])
    first["memory_free_bytes"] = FREE - HELD
    second.update(index=1, uuid="GPU-second")
    found = finding(gpu_busy, {"gpus.devices": [first, second]})
    assert found.fixes[0].launch == LaunchEdit(env={"CUDA_VISIBLE_DEVICES": "1"})


def test_an_old_driver_is_offered_the_last_release_for_it() -> None:
    found = finding(driver_cuda, {"gpus.driver_version": "570.124.06"}, launch=None)
    assert any(f.command is not None and f.command[-1] == "vllm==0.19.1" for f in found.fixes)


def test_a_driver_below_cuda_12_is_offered_no_release() -> None:
    found = finding(driver_cuda, {"gpus.driver_version": "470.82.01"}, launch=None)
    assert not any("vllm" in " ".join(f.command or ()) for f in found.fixes)


def test_bfloat16_is_replaced_by_half() -> None:
    facts: dict[str, object] = {"gpus.devices.0.name": "Tesla T4", "gpus.devices.0.compute_capability": "7.5"}
    found = finding(gpu_feature, facts, launch=f"{LAUNCH} --dtype bfloat16")
    assert found.fixes[0].launch == LaunchEdit(set={"--dtype": "half"})


def test_a_whole_machine_without_its_fabric_manager_fails_for_certain() -> None:
    gpu = msgspec.to_builtins(Case("fabric-manager", "quiet", {"id": "x", "fixture": "healthy-h100"}).snapshot().gpus)
    devices = [{**gpu["devices"][0], "index": i, "fabric_state": "in-progress"} for i in range(8)]
    found = finding(fabric_manager, {"gpus.devices": devices}, launch=None)
    assert (found.severity, found.confidence) == (Severity.ERROR, Confidence.CERTAIN)
    assert found.fixes[0].command == ("sudo", "systemctl", "enable", "--now", "nvidia-fabricmanager")
