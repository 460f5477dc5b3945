"""What kind of container or virtual Linux this process runs in, from the marks that each kind leaves."""

from collections.abc import Mapping
from pathlib import Path

from vllm_doctor.paths import is_there
from vllm_doctor.probes.host import files

# Marks in the path of the control group, in this order: Kubernetes runs its pods with docker, containerd or CRI-O.
_GROUP_MARKS = (
    ("kubepods", "kubernetes"),
    ("libpod", "podman"),
    ("docker", "docker"),
    ("containerd", "containerd"),
    ("lxc", "lxc"),
)

_MARK_FILES = (
    ("/var/run/secrets/kubernetes.io", "kubernetes"),
    ("/run/.containerenv", "podman"),
    ("/.dockerenv", "docker"),
    ("/.singularity.d", "apptainer"),
)


def kind(variables: Mapping[str, str]) -> str | None:
    """The kind of container, None outside of one.

    Marks: KUBERNETES_SERVICE_HOST (every pod), /.dockerenv, /run/.containerenv (podman), /run/systemd/container
    (systemd's container interface), the variable `container` (lxc, podman, systemd-nspawn), APPTAINER_CONTAINER.
    """
    if "KUBERNETES_SERVICE_HOST" in variables:
        return "kubernetes"
    if "APPTAINER_CONTAINER" in variables or "SINGULARITY_CONTAINER" in variables:
        return "apptainer"
    for path, name in _MARK_FILES:
        if is_there(Path(path)):
            return name
    if named := files.text("/run/systemd/container", 64) or variables.get("container"):
        return named.split()[0][:40]
    return of_group(files.text("/proc/self/cgroup", 16_384) or "")


def of_group(membership: str) -> str | None:
    """The kind that a /proc/PID/cgroup tells of."""
    parts = {part for line in membership.split("\n") for part in line.split("/")[1:]}
    for mark, name in _GROUP_MARKS:
        if any(part == mark or part.startswith((f"{mark}-", f"{mark}.", f"{mark}:")) for part in parts):
            return name
    return None


def is_wsl(kernel: str) -> bool:
    """Whether this is Linux under Windows: Microsoft names itself in the kernel's release."""
    return "microsoft" in kernel.lower()
