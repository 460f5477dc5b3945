"""The reader of environment reports against odd and hostile text."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.env_report.test_fixtures import FIXTURES, FOLDER, environment_of, gpus_of, host_of, reported
from vllm_doctor.errors import InputFileError
from vllm_doctor.facts import Gpus, MigDevice, Unknown
from vllm_doctor.probes.env_report import MAXIMUM_CHARACTERS, read_env_report
from vllm_doctor.probes.env_report.text import KEYS, MAXIMUM_GPUS
from vllm_doctor.probes.env_report.words import NOT_SAID, UNSAID

MINIMAL = "PyTorch version: 2.3.0+cu121\nPython version: 3.9.19 (64-bit runtime)\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vllm serve fails with an error",
        "OS: Ubuntu\nArchitecture: x86_64\n",
        "PyTorch version: 2.3.0",
        "PyTorch version: {torch_version}\nCUDA used to build PyTorch: {cuda_compiled_version}\n",
    ],
)
def test_no_report(text: str) -> None:
    with pytest.raises(InputFileError, match="holds no environment report"):
        read_env_report(text)


def test_a_few_lines_of_a_report_are_enough() -> None:
    snapshot = read_env_report(
        MINIMAL + "GPU models and configuration: GPU 0: NVIDIA L4\nNvidia driver version: 550.90.07\n"
    )
    gpus, environment = gpus_of(snapshot), environment_of(snapshot)
    assert gpus.driver_version == "550.90.07"
    assert [g.name for g in gpus.devices] == ["NVIDIA L4"]
    assert (environment.python_version, environment.vllm) == ("3.9.19", None)
    assert environment.torch is not None
    assert (environment.torch.cuda, environment.torch.cuda_available) == ("12.1", None)
    # Nothing says which machine it is.
    assert snapshot.host == UNSAID


def test_a_build_that_nothing_tells_is_left_out() -> None:
    environment = environment_of(read_env_report("PyTorch version: 2.3.0\nPython version: 3.9.19\n[pip3] torch==2.3.0"))
    assert environment.torch is None
    assert [(d.name, d.version) for d in environment.distributions] == [("torch", "2.3.0")]


def test_a_source_build_for_no_gpu_may_be_one_for_xpu() -> None:
    text = (
        "PyTorch version: 2.5.0a0+git136e28f\nCUDA used to build PyTorch: None\nROCM used to build PyTorch: N/A\n"
        "Python version: 3.10.14\n"
    )
    assert environment_of(read_env_report(text)).torch is None
    asked = environment_of(read_env_report(text + "XPU used to build PyTorch: N/A\n")).torch
    assert asked is not None
    assert asked.platform == "cpu"
    found = environment_of(read_env_report(text + "Is XPU available: True\n")).torch
    assert found is not None
    assert found.platform == "xpu"


def test_the_script_pasted_before_its_output() -> None:
    script = "env_info_fmt = '''\nPyTorch version: {torch_version}\nPython version: {python_version}\n'''\n"
    environment = environment_of(read_env_report(script + MINIMAL))
    assert environment.torch is not None
    assert environment.torch.version == "2.3.0+cu121"


def test_the_first_of_two_reports_counts() -> None:
    head = "Collecting environment information...\n"
    first = head + MINIMAL + "[pip3] numpy==1.26.4\n"
    second = head + MINIMAL + "Nvidia driver version: 470.82.01\n[pip3] transformers==4.40.0\n"
    snapshot = read_env_report(first + second)
    assert snapshot == read_env_report(first)
    assert snapshot != read_env_report(second)


def test_a_quoted_report() -> None:
    quoted = "".join(f"> {line}\n" for line in (FOLDER / "vllm-0.11-two-h100-nvl.txt").read_text().splitlines())
    assert read_env_report(quoted) == reported("vllm-0.11-two-h100-nvl.txt")


def test_windows_line_ends() -> None:
    text = (FOLDER / "issue-l40s-vgpu.md").read_text()
    assert read_env_report(text.replace("\n", "\r\n")) == reported("issue-l40s-vgpu.md")


def test_mig_devices() -> None:
    text = MINIMAL + (
        "GPU models and configuration: \nGPU 0: NVIDIA A100-SXM4-80GB\n  MIG 3g.40gb     Device  0:\n"
        "  MIG 1g.10gb     Device  1:\n\nNvidia driver version: 535.54.03\n"
    )
    gpu = gpus_of(read_env_report(text)).devices[0]
    assert gpu.mig_enabled is True
    assert gpu.mig_devices == tuple(
        MigDevice(name=name, uuid=NOT_SAID, memory_total_bytes=UNSAID, memory_free_bytes=UNSAID)
        for name in ("3g.40gb", "1g.10gb")
    )


def test_wsl_and_macos() -> None:
    wsl = "Python platform: Linux-5.15.153.1-microsoft-standard-WSL2-x86_64-with-glibc2.35\n"
    host = host_of(read_env_report(MINIMAL + wsl))
    assert (host.kernel, host.machine, host.wsl) == ("5.15.153.1-microsoft-standard-WSL2", "x86_64", True)
    mac = host_of(read_env_report(MINIMAL + "OS: macOS 14.5 (arm64)\nPython platform: macOS-14.5-arm64-arm-64bit\n"))
    assert (mac.system, mac.kernel, mac.machine, mac.distribution) == ("Darwin", "14.5", "arm64", "macOS 14.5")


def test_an_odd_number_of_processors_is_unknown() -> None:
    text = MINIMAL + "OS: Ubuntu 22.04 (x86_64)\nCPU(s): many\n"
    assert isinstance(host_of(read_env_report(text)).cpu_count, Unknown)


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize(
    "secret",
    [
        "HF_TOKEN=hf_CanaryCanary123456",
        "VLLM_API_KEY=CanaryCanary123456",
        "VLLM_HTTP=https://me:CanaryCanary123456@example.org/",
        "[pip3] numpy==CanaryCanary123456",
        "Model name: Authorization: Bearer CanaryCanary123456",
        "OS: Linux sk-CanaryCanary123456 (x86_64)",
    ],
)
def test_secrets_are_masked(name: str, secret: str) -> None:
    import msgspec

    lines = (FOLDER / name).read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if "vLLM Build Flags" in line or "[conda]" in line)
    text = "\n".join([secret, *lines[: place + 1], secret, *lines[place + 1 :]])
    assert b"CanaryCanary" not in msgspec.json.encode(read_env_report(text))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=2000))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_env_report(text)
    except InputFileError:
        return


LINES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(KEYS)), st.text(max_size=60)).map(lambda pair: f"{pair[0]}: {pair[1]}"),
        st.text(max_size=60).map("GPU 0: {}".format),
        st.text(max_size=60).map("[pip3] numpy=={}".format),
        st.text(max_size=60).map("[conda] {}".format),
        st.text(max_size=60).map("GPU Topology:\n GPU0 GPU1\nGPU0 {}".format),
        st.text(max_size=60).map("vLLM Build Flags:\nVLLM_X={}".format),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(LINES)
def test_any_values_give_facts_that_can_be_written_and_read(lines: list[str]) -> None:
    import msgspec

    from vllm_doctor.snapshot import Snapshot

    snapshot = read_env_report("\n".join([*lines, MINIMAL]))
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot


@pytest.mark.parametrize(
    "text",
    [
        "> " * 500_000 + "\n",
        "[pip3] a==1\n" * 300_000,
        "GPU models and configuration:\n" + "GPU 0: x\n" * 300_000,
        "GPU Topology:\n" + "GPU0 GPU1\n" * 300_000,
        "vLLM Build Flags:\n" + "A=b\n" * 500_000,
        "=" * 3_000_000,
        "token " * 500_000,
        "GPU models and configuration: {\n" * 100_000,
        "x:" * 1_500_000,
    ],
)
def test_long_texts_end_soon(text: str) -> None:
    started = time.process_time()
    snapshot = read_env_report(MINIMAL + text)
    assert time.process_time() - started < 5
    if isinstance(snapshot.gpus, Gpus):
        assert len(snapshot.gpus.devices) <= MAXIMUM_GPUS
    assert len(MINIMAL + text) > MAXIMUM_CHARACTERS


def test_torch_that_calls_the_driver_too_old_says_which_cuda_it_runs() -> None:
    warned = "UserWarning: CUDA initialization: The NVIDIA driver on your system is too old (found version 11040).\n"
    torch = environment_of(read_env_report(warned + MINIMAL)).torch
    assert torch is not None
    assert torch.driver_cuda == "11.4"
    plain = environment_of(read_env_report(MINIMAL)).torch
    assert plain is not None
    assert plain.driver_cuda is None


@pytest.mark.parametrize("number", ["", "x", "1104", "110400", "٤٤٤٤٤"])
def test_a_driver_version_that_is_none(number: str) -> None:
    warned = f"The NVIDIA driver on your system is too old (found version {number}).\n"
    torch = environment_of(read_env_report(warned + MINIMAL)).torch
    assert torch is not None
    assert torch.driver_cuda is None
