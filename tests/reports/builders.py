"""One constructed diagnosis that uses everything a report can show, and small builders with defaults."""

from vllm_doctor.diagnose import CheckResult, Diagnosis, Status
from vllm_doctor.facts import (
    Environment,
    FileSystem,
    Gpu,
    Gpus,
    Host,
    Launch,
    LaunchForm,
    TorchBuild,
    Unknown,
    VllmBuild,
)
from vllm_doctor.finding import Confidence, Finding, Fix, LaunchEdit, error, info, warning
from vllm_doctor.snapshot import Snapshot

NOT_ASKED = Unknown("not asked")


def host() -> Host:
    return Host(
        system="Linux",
        kernel="6.8.0-87-generic",
        machine="x86_64",
        distribution="Ubuntu 22.04.5 LTS",
        libc="glibc",
        libc_version="2.35",
        cpu_model="AMD EPYC 9554",
        cpu_count=64,
        cpu_extensions=("avx2", "avx512f"),
        memory_total_bytes=540 * 2**30,
        memory_available_bytes=500 * 2**30,
        cgroup_limit_bytes=None,
        cgroup_used_bytes=None,
        shm=FileSystem(purpose="shm", path="/dev/shm", total_bytes=270 * 2**30, free_bytes=270 * 2**30),
        memlock_bytes=None,
        open_files=1048576,
        disks=(),
        container="docker",
        wsl=False,
        gpu_device_files=("/dev/nvidia0", "/dev/nvidiactl"),
        pci_gpus=(),
        kernel_module_version="470.82.01",
        libcuda_paths=("/usr/lib/x86_64-linux-gnu/libcuda.so.1",),
        library_path=(),
        environment={},
    )


def gpu(index: int = 0, name: str = "NVIDIA H100 80GB HBM3") -> Gpu:
    return Gpu(
        index=index,
        name=name,
        uuid=f"GPU-{index}",
        lost=None,
        compute_capability="9.0",
        memory_total_bytes=81559 * 2**20,
        memory_used_bytes=4 * 2**20,
        memory_free_bytes=81555 * 2**20,
        mig_enabled=False,
        mig_devices=(),
        ecc_uncorrected=0,
        remapped_rows_pending=False,
        remapped_rows_failed=False,
        persistence=True,
        compute_mode="default",
        pcie_generation=5,
        pcie_generation_max=5,
        pcie_width=16,
        pcie_width_max=16,
        nvlinks_active=18,
        processes=(),
    )


def environment() -> Environment:
    return Environment(
        python="/opt/venv/bin/python",
        python_version="3.12.11",
        implementation="CPython",
        prefix="/opt/venv",
        kind="venv",
        named_by="vllm on PATH",
        markers={},
        openssl_version=NOT_ASKED,
        search_path=(),
        commands={},
        distributions=(),
        torch=TorchBuild(version="2.10.0+cu128", platform="cuda", cuda="12.8", path="/opt/venv/torch"),
        vllm=VllmBuild(
            path="/opt/venv/vllm",
            distribution="vllm",
            metadata_version="0.18.0",
            package_version="0.18.0",
            platform="cuda",
            extensions=("_C.abi3.so",),
        ),
        extensions=(),
        shadows=(),
    )


def launch(given: str = "vllm serve Qwen/Qwen2.5-7B-Instruct --tensor-parallel-size 3") -> Launch:
    return Launch(
        given=given,
        form=LaunchForm.SERVE,
        program=("vllm", "serve"),
        environment={},
        model="Qwen/Qwen2.5-7B-Instruct",
        model_is_positional=True,
        words=(),
        flags=(),
    )


def snapshot(*, with_launch: bool = True, failed_probes: tuple[str, ...] = ()) -> Snapshot:
    return Snapshot(
        host=host(),
        gpus=Gpus(driver_version="470.82.01", cuda_version="11.4", devices=(gpu(0), gpu(1))),
        environment=environment(),
        servers=NOT_ASKED,
        launch=launch() if with_launch else None,
        model=Unknown("the hub was not asked (--offline) and the cache has no such model") if with_launch else None,
        doctor_version="0.1.0",
        taken_at="2026-07-01T12:00:00+00:00",
        failed_probes=failed_probes,
    )


def finding(**changes: object) -> Finding:
    values: dict[str, object] = {
        "cause": "driver-too-old",
        "check": "driver-cuda",
        "title": "The driver is too old",
        "evidence": ("470.82.01 < 525.60.13",),
        **changes,
    }
    check = values.pop("check")
    made = error(**values)  # type: ignore[arg-type]
    return Finding(**{f: getattr(made, f) for f in made.__struct_fields__} | {"check": check})


def driver_finding() -> Finding:
    return finding(
        title="The NVIDIA driver 470.82.01 cannot run CUDA 12.8: it needs 525.60.13 or later",
        evidence=(
            "the driver is 470.82.01 (NVML)",
            "torch 2.10.0+cu128 in /opt/venv/lib/python3.12/site-packages/torch was built for CUDA 12.8, and every "
            "CUDA 12 needs a driver of at least 525.60.13",
        ),
        fixes=(
            Fix(
                title="Update the driver to a branch that is supported, then restart the machine",
                command=("sudo", "apt-get", "install", "--yes", "nvidia-driver-580-server", "nvidia-utils-580-server"),
            ),
            Fix(title="Or ask the administrator of this host to do it"),
        ),
    )


def parallel_finding() -> Finding:
    return finding(
        cause="tp-divisibility",
        check="tensor-parallel-heads",
        title="28 attention heads cannot be divided by --tensor-parallel-size 3",
        evidence=("num_attention_heads is 28 in config.json", "28 / 3 leaves 1"),
        fixes=(
            Fix(
                title="Use 2 GPUs",
                launch=LaunchEdit(
                    set={"--tensor-parallel-size": "2", "--enforce-eager": None},
                    unset=("--served-models",),
                    env={"CUDA_VISIBLE_DEVICES": "0,1", "VLLM_USE_V1": None},
                    positional="Qwen/Qwen2.5-7B-Instruct-AWQ",
                    drop_words=("stray",),
                ),
                automatic=True,
            ),
        ),
    )


def shm_finding() -> Finding:
    made = warning(
        "shm-too-small",
        "/dev/shm may be too small for 2 workers",
        evidence=("/dev/shm holds 64 MiB",),
        fixes=(Fix(title="Start the container with more", command=("docker", "run", "--shm-size=8g")),),
        confidence=Confidence.LIKELY,
    )
    return Finding(**{f: getattr(made, f) for f in made.__struct_fields__} | {"check": "shm-size"})


def name_finding() -> Finding:
    made = info(
        "model-name-mismatch",
        "Clients must write the model's name as the server does",
        evidence=("the server will serve Qwen/Qwen2.5-7B-Instruct",),
        fixes=(Fix(title="Enter this in Tlink", settings={"Model": "Qwen/Qwen2.5-7B-Instruct"}),),
    )
    return Finding(**{f: getattr(made, f) for f in made.__struct_fields__} | {"check": "model-name"})


PACKAGE = "vllm_doctor_checks"


def result(check_id: str, status: Status, reason: str = "", seconds: float = 0.0) -> CheckResult:
    return CheckResult(id=check_id, status=status, reason=reason, seconds=seconds, package=PACKAGE)


def diagnosis() -> Diagnosis:
    """Everything at once: two errors, a warning, a note, unknown, skipped, crashed, passed, a corrected launch."""
    return Diagnosis(
        snapshot=snapshot(),
        findings=(driver_finding(), parallel_finding(), shm_finding(), name_finding()),
        checks=(
            result("acme-rules", Status.CRASHED, "KeyError: 'x' (acme)"),
            result("cpu-extensions", Status.SKIPPED, "holds for CPU builds; this vLLM is a CUDA build"),
            result("driver-cuda", Status.FOUND, seconds=0.012),
            result("gpu-busy", Status.PASSED, seconds=0.0004),
            result("max-model-len", Status.UNKNOWN, "the hub was not asked (--offline)"),
            result("model-files", Status.UNKNOWN, "the hub was not asked (--offline)"),
            result("model-name", Status.FOUND),
            result("port-taken", Status.UNKNOWN, "not asked"),
            result("python-version", Status.PASSED, seconds=0.001),
            result("rocm-version", Status.SKIPPED, "holds for ROCM builds; this vLLM is a CUDA build"),
            result("shm-size", Status.FOUND, seconds=0.0001),
            result("tensor-parallel-heads", Status.FOUND, seconds=0.002),
        ),
        corrected="VLLM_LOGGING_LEVEL=INFO vllm serve Qwen/Qwen2.5-7B-Instruct --tensor-parallel-size 2 "
        "--chat-template-kwargs '{\"enable_thinking\": false}'",
    )


def healthy() -> Diagnosis:
    """A launch without a fault, every check passed."""
    return Diagnosis(
        snapshot=snapshot(),
        findings=(),
        checks=(result("driver-cuda", Status.PASSED, seconds=0.01), result("gpu-busy", Status.PASSED, seconds=0.02)),
    )


def bare() -> Diagnosis:
    """A machine of which nothing is known."""
    reason = Unknown("the probe did not answer within 30 s")
    return Diagnosis(
        snapshot=Snapshot(host=reason, gpus=reason, environment=reason, servers=reason, failed_probes=("host", "GPUs")),
        findings=(),
        checks=(result("driver-cuda", Status.UNKNOWN, reason.reason),),
    )
