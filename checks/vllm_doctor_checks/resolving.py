"""Which vLLM release runs on this host, as a fix: for its driver, GPUs, Python and C library."""

from vllm_doctor.facts import Environment, Gpus, Host
from vllm_doctor.finding import Fix
from vllm_doctor.releases import Release
from vllm_doctor.releases.resolver import Target, newest_for
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import devices, installers


def target(snapshot: Snapshot) -> Target:
    """What a release must run on here; what is not known is not held against any release.

    A container brings its own Python and C library.
    """
    gpus, environment = snapshot.gpus, snapshot.environment
    host = snapshot.host if isinstance(snapshot.host, Host) else None
    inside = devices.in_container(snapshot)
    found = gpus if isinstance(gpus, Gpus) else None
    capabilities = (gpu.compute_capability for gpu in (found.devices if found is not None else ()))
    has_glibc = host is not None and host.libc == "glibc" and not inside
    return Target(
        driver_version=_text(found.driver_version) if found is not None else None,
        capabilities=tuple(c for c in capabilities if isinstance(c, str)),
        python_version=environment.python_version if isinstance(environment, Environment) and not inside else None,
        libc_version=_text(host.libc_version) if host is not None and has_glibc else None,
        machine=host.machine if host is not None else "x86_64",
    )


def newest(snapshot: Snapshot) -> Release | None:
    """The newest release that runs here."""
    return newest_for(target(snapshot))


def fix(snapshot: Snapshot, why: str) -> Fix | None:
    """The fix that installs the newest release that runs here; None where no release does. `why` ends its title."""
    found = newest(snapshot)
    if found is None:
        return None
    environment = snapshot.environment
    if devices.in_container(snapshot):
        image = f"vllm/vllm-openai:v{found.version}"
        return Fix(title=f"Or run vLLM {found.version}, {why}: the image {image}", command=("docker", "pull", image))
    title = f"Or run vLLM {found.version}, {why}"
    if not isinstance(environment, Environment):
        return Fix(title=title)
    return Fix(title=title, command=installers.install(environment, f"vllm=={found.version}"))


def _text(fact: object) -> str | None:
    return fact if isinstance(fact, str) else None
