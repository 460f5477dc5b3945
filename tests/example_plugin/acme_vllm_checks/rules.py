"""Checks of the company Acme."""

from collections.abc import Iterator

from vllm_doctor.check import check, known
from vllm_doctor.finding import Finding, Fix, warning
from vllm_doctor.snapshot import Snapshot


@check("acme.kernel", causes=("acme.old-kernel",), needs=("host",))
def old_kernel(snapshot: Snapshot) -> Iterator[Finding]:
    """The host runs a kernel that Acme does not support.

    Why: Acme's storage driver needs Linux 999.

    Fix: install the current image.
    """
    host = known(snapshot.host)
    if int(host.kernel.split(".", 1)[0]) < 999:
        yield warning(
            "acme.old-kernel",
            f"Linux {host.kernel} is older than 999",
            evidence=(f"uname says {host.kernel}",),
            fixes=(Fix(title="Install the current image"),),
        )


@check("acme.crash", causes=("acme.crash",), needs=())
def crash(snapshot: Snapshot) -> Iterator[Finding]:
    """A check that crashes.

    Why: to show what becomes of it.

    Fix: mend the check.
    """
    yield warning("acme.crash", snapshot.no_such_fact, evidence=())  # type: ignore[attr-defined]
