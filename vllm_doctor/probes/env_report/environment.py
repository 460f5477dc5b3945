"""The Python environment as an environment report shows it: Python, torch, vLLM and the listed packages."""

from vllm_doctor.facts import Distribution, Environment, TorchBuild, Unknown, VllmBuild
from vllm_doctor.probes.env_report.text import Report, is_version
from vllm_doctor.probes.env_report.words import NOT_SAID, UNSAID

# Local version tags of torch and vLLM wheels, by platform.
_TAGS = (("cu", "cuda"), ("rocm", "rocm"), ("xpu", "xpu"), ("tpu", "tpu"), ("cpu", "cpu"))

# torch's own collect_env prints Python's words, vLLM's translates them.
_ANSWERS = {"true": True, "yes": True, "false": False, "no": False}


def environment(report: Report) -> Environment | Unknown:
    """What the report says of the environment, never complete; Unknown where it does not say which Python it is.

    `python` is the bare command: the report names no path, and fixes need a word to begin with.
    """
    said = report.fields.get("python version", "")
    version = said.split(" ")[0]
    if not is_version(version):
        return UNSAID
    torch = _torch(report)
    vllm = _vllm(report, torch)
    return Environment(
        python="python",
        python_version=version,
        implementation="cpython",
        prefix=NOT_SAID,
        kind=_kind(said, report),
        named_by="environment report",
        markers=_markers(version, report),
        openssl_version=UNSAID,
        search_path=(),
        commands={},
        distributions=_distributions(report, torch, vllm),
        torch=torch,
        vllm=vllm,
        extensions=UNSAID,
        shadows=(),
        complete=False,
    )


def _kind(python_version: str, report: Report) -> str:
    if report.uses_uv:
        return "uv"
    return "conda" if "conda" in python_version else "unknown"


def _markers(version: str, report: Report) -> dict[str, str]:
    """The PEP 508 markers that follow from what is said; torch and vLLM exist for CPython alone."""
    markers = {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_full_version": version,
        "python_version": ".".join(version.split(".")[:2]),
    }
    said = report.fields.get("python platform", "")
    if said.startswith("Linux-"):
        machine = said.partition("-with-")[0].rpartition("-")[2]
        markers |= {
            "os_name": "posix",
            "platform_machine": machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
        }
    return markers


def _torch(report: Report) -> TorchBuild | None:
    """torch with what it was built for; None where torch was not there, or nothing says what it was built for."""
    version = report.fields.get("pytorch version", "").split(" ")[0]
    platform = _torch_platform(version, report)
    if not is_version(version) or platform is None:
        return None
    return TorchBuild(
        version=version,
        platform=platform,
        cuda=_torch_cuda(version, report) if platform == "cuda" else None,
        path=NOT_SAID,
        cuda_available=_ANSWERS.get(report.fields.get("is cuda available", "").lower()),
        driver_cuda=report.driver_cuda if platform == "cuda" else None,
    )


def _torch_platform(version: str, report: Report) -> str | None:
    if (platform := _tagged(version)) is not None:
        return platform
    for label, platform in (("cuda", "cuda"), ("rocm", "rocm"), ("xpu", "xpu")):
        if f"{label} used to build pytorch" in report.fields:
            return platform
    if _ANSWERS.get(report.fields.get("is xpu available", "").lower()):
        return "xpu"
    return "cpu" if _is_for_the_processor(version, report) else None


def _is_for_the_processor(version: str, report: Report) -> bool:
    """Whether torch, asked by collect_env, is a build for no GPU.

    Older reports do not ask for XPU; a source build (`2.5.0a0+git136e28f`) may then be one for XPU.
    """
    asked = {"cuda used to build pytorch", "rocm used to build pytorch"}
    sure = "+" not in version or "xpu used to build pytorch" in report.unanswered
    return sure and asked <= report.unanswered


def _tagged(version: str) -> str | None:
    tag = version.partition("+")[2].lower()
    return next((platform for start, platform in _TAGS if tag.startswith(start)), None)


def _torch_cuda(version: str, report: Report) -> str | None:
    """`12.8`, as torch says, else by the tag of its version (`+cu128`)."""
    said = report.fields.get("cuda used to build pytorch", "")
    if is_version(said):
        return said
    digits = version.partition("+cu")[2][:3]
    return f"{digits[:2]}.{digits[2]}" if len(digits) == 3 and digits.isdecimal() else None


def _vllm(report: Report, torch: TorchBuild | None) -> VllmBuild | None:
    """vLLM as it names its own version: the report had to import it, so its metadata is taken to agree."""
    version = report.fields.get("vllm version", "").split(" ")[0]
    if not is_version(version):
        return None
    return VllmBuild(
        path=NOT_SAID,
        distribution="vllm",
        metadata_version=version,
        package_version=version,
        platform=_vllm_platform(version, torch),
        extensions=(),
    )


def _vllm_platform(version: str, torch: TorchBuild | None) -> str | Unknown:
    """By the version's tag, else by torch; a torch for the processor may also be the wrong torch of a CUDA build."""
    if (tagged := _tagged(version)) is not None:
        return tagged
    return torch.platform if torch is not None and torch.platform != "cpu" else UNSAID


def _distributions(report: Report, torch: TorchBuild | None, vllm: VllmBuild | None) -> tuple[Distribution, ...]:
    """The listed packages, one of each name; a package that is imported says its own version better than a list."""
    found: dict[str, str] = {}
    if torch is not None:
        found["torch"] = torch.version
    if vllm is not None and vllm.metadata_version is not None:
        found["vllm"] = vllm.metadata_version
    for name, version in report.packages:
        found.setdefault(_normalised(name), version)
    return tuple(Distribution(name=n, version=v, location=NOT_SAID) for n, v in sorted(found.items()))


def _normalised(name: str) -> str:
    """The name as PEP 503 compares it."""
    return "-".join(part for part in name.lower().replace("_", "-").replace(".", "-").split("-") if part)
