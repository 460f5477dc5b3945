"""The limits that the shell passes on: locked memory, open files, address space."""

from vllm_doctor.facts import Unknown
from vllm_doctor.probes.host.memory import UNLIMITED_BYTES


def soft(name: str) -> int | Unknown | None:
    """The soft limit of that name of `resource` (RLIMIT_...); None where there is none."""
    try:
        import resource
    except ImportError:
        return Unknown("this system has no resource limits")
    which = getattr(resource, name, None)
    if which is None:
        return Unknown(f"this system has no {name}")
    try:
        value = resource.getrlimit(which)[0]
    except (OSError, ValueError) as problem:
        return Unknown(f"{name}: {problem}")
    return None if value == resource.RLIM_INFINITY or not 0 <= value < UNLIMITED_BYTES else value
