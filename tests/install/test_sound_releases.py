"""What pip installs with a release of vLLM brings no finding where it runs; one thing wrong in it is named alone."""

import pytest
from msgspec import structs

from tests.install.release_environments import (
    HOSTS,
    RELEASES,
    distributions,
    environment,
    on,
    unread,
    with_torch_of,
    with_versions,
)
from vllm_doctor import registry
from vllm_doctor.diagnose import Status, diagnose
from vllm_doctor.facts import Distribution, Environment
from vllm_doctor.finding import Finding

REGISTRY = registry.load()

# Host -> the causes that really hold for the releases with CUDA 13 there, and for torch 2.5 of vLLM 0.6.6.
CUDA_13 = {
    "a100-550": ["driver-too-old"],
    "a100-535": ["driver-too-old"],
    "v100": ["driver-too-old", "arch-unsupported"],
}
TORCH_2_5 = {"b200": ["arch-unsupported"]}


def findings(host: str, found: Environment) -> tuple[Finding, ...]:
    made = diagnose(on(host, found), REGISTRY)
    assert [c for c in made.checks if c.status is Status.CRASHED] == []
    return made.findings


def the_one(found: Environment) -> tuple[str, str, str]:
    """Check, cause and severity of the only finding on an H100."""
    made = findings("h100", found)
    assert len(made) == 1, made
    return made[0].check, made[0].cause, made[0].severity.value


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("host", HOSTS)
def test_a_sound_installation_has_the_findings_of_its_host_and_no_other(release: str, host: str) -> None:
    # The 14.2 GiB of weights leave nothing on a T4.
    memory = ["oom-activation"] if host == "t4" else []
    expected = {"0.31.0": CUDA_13, "0.6.6": TORCH_2_5}.get(release, {}).get(host, []) + memory
    assert [f.cause for f in findings(host, environment(release))] == expected


@pytest.mark.parametrize(("release", "other"), [("0.6.6", "0.10.2"), ("0.10.2", "0.19.1"), ("0.19.1", "0.10.2")])
def test_an_upgraded_torch_is_one_finding_whatever_moved_with_it(release: str, other: str) -> None:
    moved = with_torch_of(environment(release), other)
    assert the_one(moved) == ("torch-pin", "torch-vllm-mismatch", "warning")
    # Modules that could not be read speak for nothing: before 0.26 such kernels load with the pinned torch only.
    assert the_one(unread(moved)) == ("torch-pin", "torch-vllm-mismatch", "error")


@pytest.mark.parametrize("release", RELEASES)
def test_a_torch_without_cuda_is_one_finding(release: str) -> None:
    found = environment(release)
    assert found.torch is not None
    version = f"{distributions(release)['torch'].version}+cpu"
    torch = structs.replace(found.torch, version=version, platform="cpu", cuda=None)
    assert the_one(structs.replace(with_versions(found, torch=version), torch=torch)) == (
        "gpu-visible",
        "gpu-not-visible",
        "error",
    )


# Release, what is moved -> check, cause, severity.
MOVED = [
    ("0.10.2", {"torchvision": "0.22.0"}, "torch-companions", "torch-companion-mismatch", "warning"),
    ("0.10.2", {"torchaudio": "2.7.0"}, "torch-companions", "torch-companion-mismatch", "warning"),
    ("0.10.2", {"transformers": "5.3.0"}, "transformers-range", "transformers-mismatch", "warning"),
    ("0.10.2", {"transformers": "4.50.0"}, "transformers-range", "transformers-mismatch", "warning"),
    ("0.19.1", {"flashinfer_cubin": "0.6.5"}, "flashinfer-parts", "flashinfer-mismatch", "error"),
    ("0.6.6", {"numpy": "2.2.6"}, "requirement-violated", "dependency-conflict", "warning"),
    ("0.31.0", {"pydantic": "1.10.13"}, "requirement-violated", "dependency-conflict", "error"),
    ("0.31.0", {"pydantic_core": "2.20.0"}, "requirement-violated", "dependency-conflict", "error"),
    ("0.19.1", {"protobuf": "3.20.3"}, "requirement-violated", "dependency-conflict", "warning"),
    ("0.31.0", {"urllib3": "1.26.4"}, "cloud-libraries", "dependency-conflict", "error"),
]


@pytest.mark.parametrize(("release", "versions", "check", "cause", "severity"), MOVED)
def test_one_library_of_another_version(
    release: str, versions: dict[str, str], check: str, cause: str, severity: str
) -> None:
    assert the_one(with_versions(environment(release), **versions)) == (check, cause, severity)


def test_cuda_wheels_that_nothing_requires_any_more_do_no_harm() -> None:
    found = environment("0.31.0")
    left = tuple(d for name, d in distributions("0.19.1").items() if name.endswith("-cu12"))
    assert left
    assert findings("h100", structs.replace(found, distributions=(*found.distributions, *left))) == ()


def test_cuda_wheels_of_two_majors_that_are_required_are_named() -> None:
    found = environment("0.31.0")
    plugin = Distribution(name="plugin", version="1.0", location="/x", requires=("nvidia-cudnn-cu12>=9",))
    cudnn = distributions("0.19.1")["nvidia-cudnn-cu12"]
    mixed = structs.replace(found, distributions=(*found.distributions, plugin, cudnn))
    assert the_one(mixed) == ("cuda-wheels", "cuda-wheel-mismatch", "warning")


@pytest.mark.parametrize("release", ["0.10.2", "0.19.1"])
def test_a_python_that_the_release_does_not_support(release: str) -> None:
    found = environment(release)
    markers = {**found.markers, "python_version": "3.15", "python_full_version": "3.15.0"}
    newer = structs.replace(found, python_version="3.15.0", markers=markers)
    assert the_one(newer) == ("python-version", "python-unsupported", "warning")
