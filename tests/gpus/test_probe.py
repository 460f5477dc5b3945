"""The real probe and the real binding against the stub NVML, scenario by scenario."""

import os
import subprocess
import sys
import time

import pytest

from tests.gpus.probing import PROBE, ROOT, gpus, probed
from tests.nvml_stub import SCENARIOS, run_with_nvml
from vllm_doctor.facts import Gpu, MigDevice, NvmlFailure, NvmlUnavailable, ProcessRole, Unknown

MIB = 2**20
PIDS = {"pid": os.getpid(), "orphan": os.getpid(), "other": os.getpid(), "foreign": 2**30}


def the_gpu(scenario: str, **values: object) -> Gpu:
    [device] = gpus(scenario, **values).devices
    return device


@pytest.mark.parametrize("name", sorted(p.stem for p in SCENARIOS.glob("*.scenario") if p.stem != "hangs"))
def test_every_scenario_becomes_facts(name: str) -> None:
    found = probed(name, **PIDS)
    text = (SCENARIOS / f"{name}.scenario").read_text(encoding="utf-8")
    if isinstance(found, NvmlUnavailable):
        assert "fail nvmlInitWithFlags" in text
        return
    assert f"driver {found.driver_version}\n" in text
    forbidden = text.count("fail nvmlDeviceGetHandleByIndex_v2 4")
    assert len(found.devices) == text.count("\ngpu ") - forbidden


def test_an_h200_as_a_real_one_answers() -> None:
    found = gpus("h200-1")
    assert (found.driver_version, found.cuda_version) == ("580.159.03", "13.0")
    [gpu] = found.devices
    assert (gpu.name, gpu.compute_capability) == ("NVIDIA H200", "9.0")
    assert gpu.memory_total_bytes == 143771 * MIB
    assert (gpu.nvlinks_active, gpu.fabric_state, gpu.compute_mode) == (18, "completed", "default")
    assert (gpu.mig_enabled, gpu.ecc_uncorrected, gpu.remapped_rows_failed, gpu.processes) == (False, 0, False, ())


def test_eight_gpus_keep_their_order() -> None:
    devices = gpus("h100-8").devices
    assert [g.index for g in devices] == list(range(8))
    assert len({g.uuid for g in devices}) == 8


def test_what_the_driver_reserves_is_neither_used_nor_free() -> None:
    gpu = the_gpu("h100-1")
    assert gpu.memory_used_bytes == 4 * MIB
    assert gpu.memory_free_bytes == (81559 - 551 - 4) * MIB


def test_driver_470_is_asked_with_the_older_calls() -> None:
    gpu = the_gpu("a100-driver-470")
    assert gpu.memory_total_bytes == 40960 * MIB
    assert gpu.memory_free_bytes == (40960 - 3) * MIB
    assert gpu.processes == ()
    assert gpu.fabric_state is None


def test_v100_has_neither_mig_nor_row_remapping() -> None:
    gpu = gpus("v100-4").devices[0]
    assert (gpu.mig_enabled, gpu.remapped_rows_pending, gpu.remapped_rows_failed) == (None, None, None)
    assert (gpu.ecc_uncorrected, gpu.nvlinks_active, gpu.pcie_generation, gpu.pcie_width) == (0, 6, 3, 16)


def test_unified_memory_is_unknown_and_never_zero() -> None:
    gpu = the_gpu("gb10")
    for value in (gpu.memory_total_bytes, gpu.memory_used_bytes, gpu.memory_free_bytes):
        assert value == Unknown("NVML: Not Supported")
    assert (gpu.ecc_uncorrected, gpu.nvlinks_active) == (None, None)


def test_mig_instances() -> None:
    gpu = the_gpu("a100-mig")
    assert gpu.mig_enabled is True
    assert [i.name for i in gpu.mig_devices] == ["3g.40gb", "2g.20gb", "1g.10gb"]
    assert gpu.mig_devices[2] == MigDevice(
        name="1g.10gb",
        uuid="MIG-30d7c3a4-1c4b-5d3e-8a7f-000000000021",
        memory_total_bytes=9728 * MIB,
        memory_free_bytes=9716 * MIB,
    )


@pytest.mark.parametrize(
    ("scenario", "failure"),
    [
        ("version-mismatch", NvmlFailure.VERSION_MISMATCH),
        ("driver-not-loaded", NvmlFailure.DRIVER_NOT_LOADED),
        ("no-permission", NvmlFailure.NO_PERMISSION),
        ("unknown-error", NvmlFailure.OTHER),
    ],
)
def test_refusals_are_told_apart(scenario: str, failure: NvmlFailure) -> None:
    found = probed(scenario)
    assert isinstance(found, NvmlUnavailable)
    assert found.failure is failure
    assert found.detail.startswith("NVML error ")


def test_the_library_names_its_version_where_nvml_cannot() -> None:
    found = probed("version-mismatch")
    assert isinstance(found, NvmlUnavailable)
    assert found.library_version == "575.57.08"


def test_without_a_library_there_is_no_nvml() -> None:
    code = (
        "import sys, ctypes\nfrom vllm_doctor.probes import nvml\nnvml.LIBRARY = 'libnvidia-ml-absent.so.1'\n" + PROBE
    )
    code += "\nassert 'pynvml' not in sys.modules, 'the binding was imported for nothing'"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"failure":"no-library"' in done.stdout


def test_a_lost_gpu_does_not_hide_the_other() -> None:
    sound, lost = gpus("lost").devices
    assert sound.lost is None
    assert sound.memory_total_bytes == 81559 * MIB
    assert (lost.index, lost.lost) == (1, "GPU is lost")
    assert isinstance(lost.memory_total_bytes, Unknown)


def test_a_gpu_that_is_lost_behind_its_handle() -> None:
    assert the_gpu("lost-midway").lost == "GPU is lost"


def test_a_gpu_that_this_container_may_not_use_is_left_out() -> None:
    assert [g.index for g in gpus("gpu-forbidden").devices] == [1]


def test_faults_of_the_memory() -> None:
    gpu = the_gpu("sick")
    assert (gpu.ecc_uncorrected, gpu.remapped_rows_pending, gpu.remapped_rows_failed) == (3, True, True)


def test_not_supported_everywhere_is_unknown_everywhere() -> None:
    gpu = the_gpu("nothing-supported")
    assert gpu.lost is None
    assert all(
        isinstance(fact, Unknown)
        for fact in (gpu.compute_capability, gpu.memory_total_bytes, gpu.persistence, gpu.compute_mode, gpu.processes)
    )


def test_graphics_processes_hold_memory_too() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        [process] = the_gpu("rtx4090-desktop", pid=sleeper.pid).processes  # type: ignore[misc]
    finally:
        sleeper.kill()
        sleeper.wait()
    assert (process.pid, process.used_bytes, process.role) == (sleeper.pid, 512 * MIB, ProcessRole.OTHER)


def test_a_call_that_hangs_ends_at_the_time_limit() -> None:
    code = (
        "import sys, time; from vllm_doctor.probes.running import Running\n"
        "from vllm_doctor.probes.gpus import probe_gpus\n"
        "running = Running('gpus', probe_gpus); print(running.result(1.0).reason)"
    )
    started = time.monotonic()
    done = run_with_nvml("hangs", [sys.executable, "-c", code], environment={"PYTHONPATH": str(ROOT)})
    assert done.stdout.startswith("the gpus probe did not answer"), done.stderr
    assert time.monotonic() - started < 30


def test_a_function_that_the_binding_lacks_is_a_refusal() -> None:
    code = "from vllm_doctor.probes import nvml; print(nvml.query('nvmlNoSuchFunction').refusal)"
    done = run_with_nvml("h100-1", [sys.executable, "-c", code], environment={"PYTHONPATH": str(ROOT)})
    assert done.stdout == "13\n", done.stderr
