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
        f"This host cannot listen on --host {address}",
        evidence=(f"--host {address}", f"binding to it here: {servers.bind_problem}"),
        fixes=(
            Fix(
                title="Listen on every address of this host",
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
    alone = Sizes(launch).here <= 1 and (launch.number("--nnodes") or 1) <= 1
    if alone and (snapshot.platform != "cpu" or GLOO not in named):
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
        fixes=(Fix(title=f"Unset {name}", launch=LaunchEdit(env={name: None}), automatic=True),),
    )


# What NCCL pins for one connection is some MiB; NVIDIA's own containers and the MPI guides ask for no limit at all.
LOCKED_BYTES_AT_LEAST = 2**30


@check("locked-memory", causes=("nccl-failure",), needs=("launch", "host"))
def locked_memory(snapshot: Snapshot) -> Iterator[Finding]:
    """The limit on locked memory is too small for a launch over several nodes with InfiniBand or RoCE.

    Why: RDMA pins the memory that it sends from. Docker and many systems allow a process to lock 64 KiB to 8 MiB; NCCL
    then ends with `Call to ibv_reg_mr failed` or `ibv_create_cq failed with error Cannot allocate memory` (NCCL's
    documentation, "Troubleshooting"). Launches on one node do not use it.
    Fix: `ulimit -l unlimited` before the start, LimitMEMLOCK=infinity in a systemd unit, `--ulimit memlock=-1` for
    docker run.
    """
    launch, host = snapshot.launch, snapshot.host
    assert isinstance(launch, Launch) and isinstance(host, Host)
    if (launch.number("--nnodes") or 1) <= 1 and launch.value("--distributed-executor-backend") != "ray":
        raise NotApplicable("the launch stays on one node")
    if not host.infiniband_devices:
        raise NotApplicable("there is no InfiniBand or RoCE device here")
    if launch.docker is not None:
        raise NotApplicable("a container has limits of its own")
    if snapshot.variables.get("NCCL_IB_DISABLE") == "1":
        raise NotApplicable("NCCL_IB_DISABLE=1 keeps NCCL from using RDMA")
    limit = host.memlock_bytes
    if limit is None or known(limit) >= LOCKED_BYTES_AT_LEAST:
        return
    yield warning(
        "nccl-failure",
        f"Processes may lock {known(limit) // 1024} KiB of memory, too little for RDMA between nodes",
        evidence=(f"limit on locked memory: {known(limit) // 1024} KiB", f"RDMA: {', '.join(host.infiniband_devices)}"),
        fixes=(
            Fix(title="Lift the limit in the shell that starts vLLM", command=("ulimit", "-l", "unlimited")),
            Fix(
                title="Or do without RDMA, slower: set NCCL_IB_DISABLE=1",
                launch=LaunchEdit(env={"NCCL_IB_DISABLE": "1"}),
            ),
        ),
    )
