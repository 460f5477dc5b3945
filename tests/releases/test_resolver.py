"""Which releases run where: the rules, on the real data."""

import pytest

from vllm_doctor import releases
from vllm_doctor.releases.resolver import Target, newest_for, obstacles, verdicts


@pytest.mark.parametrize(
    ("target", "version"),
    [
        (Target(), releases.newest()),
        (Target(driver_version="580.65.06"), releases.newest()),
        (Target(driver_version="570.124.06"), "0.19.1"),
        (Target(driver_version="525.60.13", capabilities=("8.9",)), "0.19.1"),
        (Target(capabilities=("7.0",)), "0.19.1"),
        (Target(capabilities=("9.0", "7.0")), "0.19.1"),
        (Target(python_version="3.8.18"), "0.6.3.post1"),
        (Target(python_version="3.9.2"), "0.11.0"),
        (Target(python_version="3.10.12"), "0.31.0"),
        (Target(libc_version="2.31", driver_version="550.54.15"), "0.19.1"),
        (Target(capabilities=("6.1",)), None),
        (Target(driver_version="470.82.01"), None),
        (Target(python_version="3.7.9"), None),
        (Target(machine="ppc64le"), None),
    ],
)
def test_the_newest_that_runs(target: Target, version: str | None) -> None:
    found = newest_for(target)
    assert (found.version if found is not None else None) == version


def test_every_obstacle_is_named() -> None:
    release = releases.release("0.20.2")
    assert release is not None
    target = Target(
        driver_version="550.54.15", capabilities=("7.0", "7.0"), python_version="3.9.1", libc_version="2.31"
    )
    assert list(obstacles(release, target)) == [
        "needs Python <3.15,>=3.10",
        "needs glibc 2.35",
        "needs driver 580.65.06 (CUDA 13)",
        "its vLLM has no code for compute capability 7.0",
    ]


def test_blackwell_starts_with_the_torch_that_has_it() -> None:
    runs = [v.release.version for v in verdicts(Target(capabilities=("12.0",))) if not v.obstacles]
    assert runs[-1] == "0.10.2"


def test_arm_starts_with_its_first_wheel() -> None:
    runs = [v.release.version for v in verdicts(Target(machine="aarch64")) if not v.obstacles]
    assert runs[-1] == "0.10.2"
