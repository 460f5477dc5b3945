"""Checks of the network that a launch names: the address it listens on, the interfaces its workers talk over."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, check, known
from vllm_doctor.facts import Host, Launch, Servers
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.parallel import Sizes


@check("host-address", causes=("bad-flag",), needs=("launch", "servers"))
def host_address(snapshot: Snapshot) -> Iterator[Finding]:
    """`--host` is an address that this host cannot listen on.

    Why: `--host` is the address to listen on, one of this machine's own. vLLM ends with "Cannot assign requested
    address" (errno 99) where it is the address of another machine, or the public one of a cloud instance, which only
    the provider's router knows.
    Fix: `--host 0.0.0.0` listens on every address of this machine, `127.0.0.1` on none that others can reach.
    """
    launch, servers = snapshot.launch, snapshot.servers
    assert isinstance(launch, Launch) and isinstance(servers, Servers)
    address = launch.value("--host")
    if address is None:
        raise NotApplicable("the launch names no --host")
    if launch.docker is not None and launch.docker.network != "host":
        raise NotApplicable("the container has addresses of its own")
    if servers.bind_problem is None:
        return
    yield error(
        "bad-flag",
        f"this host cannot listen on --host {address}",
        evidence=(f"--host {address}", f"binding to it here: {servers.bind_problem}"),
        fixes=(
            Fix(
                title="listen on every address of this host",
                launch=LaunchEdit(set={"--host": "0.0.0.0"}),  # noqa: S104 - offered, never bound to
                automatic=True,
            ),
        ),
    )


# Gloo takes one name, or several with commas, and all must exist (torch/csrc/distributed/c10d/ProcessGroupGloo.cpp:
# "Unable to find address for"). NCCL takes prefixes, `=name` for a whole name and `^name` for all but these (NCCL's
# documentation, NCCL_SOCKET_IFNAME).
GLOO = "GLOO_SOCKET_IFNAME"
NCCL = "NCCL_SOCKET_IFNAME"


@check("socket-interface", causes=("nccl-failure",), needs=("launch", "host"))
def socket_interface(snapshot: Snapshot) -> Iterator[Finding]:
    """GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names a network interface that this host does not have.

    Why: the workers of a parallel launch find each other over that interface. Gloo ends with "Unable to find address
    for: NAME", NCCL with "Bootstrap : no socket interface found". Names differ from machine to machine (eth0, ens3,
    enp1s0): a value copied from another node is the usual reason.
    Fix: unset the variable, or name an interface of this host.
    """
    launch, host = snapshot.launch, snapshot.host
    assert isinstance(launch, Launch) and isinstance(host, Host)
    if launch.docker is not None and launch.docker.network != "host":
        raise NotApplicable("the container has network interfaces of its own")
    named = {name: value for name in (GLOO, NCCL) if (value := snapshot.variables.get(name))}
    if not named:
        raise NotApplicable(f"neither {GLOO} nor {NCCL} is set")
    if Sizes(launch).here <= 1 and (launch.number("--nnodes") or 1) <= 1:
        raise NotApplicable("the launch has one worker, which talks to nobody")
    present = known(host.network_interfaces)
    for name, value in named.items():
        if absent := _absent(name, value, present):
            yield _finding(name, value, absent, present)


def _absent(name: str, value: str, present: tuple[str, ...]) -> str | None:
    """The first interface that the variable asks for and that is not there."""
    words = [word.strip() for word in value.lstrip("^=").split(",") if word.strip()]
    if name == GLOO:
        return next((word for word in words if word not in present), None)
    exact = value.startswith("=")
    matched = any(link == word or (not exact and link.startswith(word)) for word in words for link in present)
    return None if value.startswith("^") or matched or not words else words[0]


def _finding(name: str, value: str, absent: str, present: tuple[str, ...]) -> Finding:
    # NCCL is used on GPUs only, and what it falls back on differs from version to version.
    report = error if name == GLOO else warning
    return report(
        "nccl-failure",
        f"{name} names the interface {absent}, which this host does not have",
        evidence=(f"{name}={value}", f"interfaces here: {', '.join(present)}"),
        fixes=(Fix(title=f"unset {name}", launch=LaunchEdit(env={name: None}), automatic=True),),
    )
