"""The host as an environment report shows it: system, C library, processor, variables."""

from vllm_doctor.facts import Host, Unknown
from vllm_doctor.probes.env_report.text import Report
from vllm_doctor.probes.env_report.words import NOT_SAID, UNSAID
from vllm_doctor.probes.host.processor import VECTOR_FLAGS
from vllm_doctor.probes.host.variables import relevant


def host(report: Report) -> Host | Unknown:
    """What the report says of the machine; Unknown where it does not even say which processor architecture it has."""
    system, kernel, machine = _platform(report)
    if not machine:
        return UNSAID
    libc, _, libc_version = report.fields.get("libc version", "").partition("-")
    flags = report.fields.get("flags")
    return Host(
        system=system,
        kernel=kernel or NOT_SAID,
        machine=machine,
        distribution=_distribution(report),
        libc=libc or UNSAID,
        libc_version=libc_version or UNSAID,
        cpu_model=report.fields.get("model name", UNSAID),
        cpu_count=_count(report.fields.get("cpu(s)", "")),
        cpu_extensions=UNSAID if flags is None else _vector_flags(flags),
        memory_total_bytes=UNSAID,
        memory_available_bytes=UNSAID,
        cgroup_limit_bytes=UNSAID,
        cgroup_used_bytes=UNSAID,
        shm=UNSAID,
        memlock_bytes=UNSAID,
        open_files=UNSAID,
        address_space_bytes=UNSAID,
        disks=(),
        container=None,
        wsl="microsoft" in kernel.lower(),
        gpu_device_files=(),
        pci_gpus=UNSAID,
        kernel_module_version=UNSAID,
        libcuda_paths=(),
        library_path=tuple(p for p in report.variables.get("LD_LIBRARY_PATH", "").split(":") if p),
        environment=relevant(report.variables),
        complete=False,
    )


def _platform(report: Report) -> tuple[str, str, str]:
    """System, kernel and machine: of `platform.platform()`, else what the OS line and lscpu say ("" where nothing)."""
    said = report.fields.get("python platform", "").partition("-with-")[0]
    system, _, rest = said.partition("-")
    if system == "Linux":
        kernel, _, machine = rest.rpartition("-")
        return system, kernel, machine
    if system == "macOS":
        # macOS-14.5-arm64-arm-64bit: the release, then the machine.
        release, _, rest = rest.partition("-")
        return "Darwin", release, rest.partition("-")[0]
    os_line = report.fields.get("os", "")
    machine = _in_brackets(os_line) or report.fields.get("architecture", "")
    if "windows" in (system + os_line).lower():
        return "Windows", rest, machine or NOT_SAID
    return "Darwin" if "mac" in os_line.lower() else "Linux", "", machine


def _in_brackets(os_line: str) -> str:
    """The machine that collect_env writes last: `Ubuntu 22.04.5 LTS (x86_64)`."""
    machine = os_line.rpartition("(")[2].removesuffix(")") if os_line.endswith(")") else ""
    return machine if machine in ("x86_64", "aarch64", "arm64", "ppc64le", "s390x", "riscv64", "i386") else ""


def _distribution(report: Report) -> str | Unknown:
    line = report.fields.get("os")
    if line is None:
        return UNSAID
    machine = _in_brackets(line)
    return line.removesuffix(f"({machine})").strip() or UNSAID


def _count(text: str) -> int | Unknown:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else UNSAID


def _vector_flags(flags: str) -> tuple[str, ...]:
    present = set(flags.split())
    return tuple(flag for flag in VECTOR_FLAGS if flag in present)
