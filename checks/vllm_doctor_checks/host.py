"""Checks of the machine that a launch runs on: shared memory, RAM, disks, the processor."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Environment, FileSystem, Host, Launch, Model, ModelSource, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import memory_needs
from vllm_doctor_checks.launch_values import GIB, MIB, gib, release_of, setting, workers

# vLLM 0.27.0 - 0.33.0, `distributed/device_communicators/shm_broadcast.py: check_shm_free_space` (pull request 48879):
# too little room ends the start. Before, the same buffers were made and filled lazily, and a full /dev/shm killed a
# worker by SIGBUS in the middle of serving.
SHM_CHECKED_FROM = (0, 27, 0)

# `MessageQueue`: 10 chunks; 24 MiB each for a worker's answers (10 MiB before 0.11.1), VLLM_MQ_MAX_CHUNK_BYTES_MB (16)
# for what the engine sends. Seen with 0.32.0: "240 MiB required, 200 MiB free".
CHUNKS = 10
ANSWER_CHUNK_BYTES = 24 * MIB
OLD_ANSWER_CHUNK_BYTES = 10 * MIB
LARGER_ANSWERS_FROM = (0, 11, 1)
DEFAULT_CHUNK_MIB = 16

# The default of `docker run` and `podman run` (--shm-size), and what NVIDIA's guide says to give (NCCL user guide,
# troubleshooting, "Docker": --shm-size=1g).
CONTAINER_SHM_BYTES = 64 * MIB
ADVISED_SHM = "--shm-size=8g"
SHM = "/dev/shm"  # noqa: S108 - named in findings only

# From here on several data-parallel replicas make vLLM take the multiprocessing executor, whatever each one's size
# (`config/parallel.py`: world_size_across_dp > 1).
REPLICAS_COUNT_FROM = (0, 17, 0)

# Executors that make no such buffers.
OTHER_EXECUTORS = ("uni", "external_launcher", "ray")


@check("shm-size", causes=("shm-too-small",), needs=("host", "launch"))
def shm_size(snapshot: Snapshot) -> Iterator[Finding]:
    """Shared memory (/dev/shm) is too small for the messages between the engine and its workers.

    Why: engine and workers exchange messages through buffers in /dev/shm: 240 MiB must be free for them. A container
    has 64 MiB unless told otherwise. From vLLM 0.27.0 the start ends with "Insufficient space in /dev/shm"; older
    releases start, and a worker dies by SIGBUS once the buffers fill. One worker on a GPU needs no buffers.
    Fix: start the container with `--ipc=host` or `--shm-size=8g`; in Kubernetes mount an `emptyDir` with
    `medium: Memory` at /dev/shm; on a bare machine remount /dev/shm larger or remove what dead servers left there.
    """
    host, launch = snapshot.host, snapshot.launch
    assert isinstance(host, Host) and isinstance(launch, Launch)
    needed = _needed_bytes(snapshot, host, launch)
    free_bytes, where = _shared_memory(host, launch)
    if free_bytes >= needed:
        return
    if not _uses_buffers(snapshot, launch):
        return
    release = release_of(snapshot)
    evidence = (
        f"{where}: {free_bytes // MIB} MiB free",
        f"needed: {needed // MIB} MiB ({CHUNKS} chunks of {needed // MIB // CHUNKS} MiB)",
        f"workers: {workers(launch)}, build: {snapshot.platform}",
    )
    if release is not None and release >= SHM_CHECKED_FROM:
        title = f"{free_bytes // MIB} MiB are free in {SHM}, this launch needs {needed // MIB} MiB"
        yield error("shm-too-small", title, evidence=evidence, fixes=_shm_fixes(host, launch))
        return
    which = "this vLLM (its release is not known)" if release is None else f"vLLM {snapshot.vllm_version}"
    title = f"{free_bytes // MIB} MiB are free in {SHM}, the buffers of {which} may grow to {needed // MIB} MiB"
    yield warning("shm-too-small", title, evidence=evidence, fixes=_shm_fixes(host, launch))


def _needed_bytes(snapshot: Snapshot, host: Host, launch: Launch) -> int:
    given = setting(host, launch, "VLLM_MQ_MAX_CHUNK_BYTES_MB") or ""
    chunk = int(given) * MIB if given.isascii() and given.isdecimal() and len(given) < 7 else DEFAULT_CHUNK_MIB * MIB
    release = release_of(snapshot)
    old = release is not None and release < LARGER_ANSWERS_FROM
    answer = OLD_ANSWER_CHUNK_BYTES if old else ANSWER_CHUNK_BYTES
    # Each chunk has a flag of its writer and one of each reader.
    return CHUNKS * (max(chunk, answer) + 1 + workers(launch))


def _shared_memory(host: Host, launch: Launch) -> tuple[int, str]:
    """The free bytes of the /dev/shm that the launch will see, and whose it is."""
    docker = launch.docker
    if docker is None or docker.ipc == "host":
        if host.system == "Darwin":
            raise NotApplicable(f"macOS has no {SHM}")
        shm = known(host.shm)
        return shm.free_bytes, f"{SHM} of this host"
    if docker.ipc is not None and docker.ipc.startswith("container:"):
        raise NotKnown(f"the container shares the memory of another one ({docker.ipc})")
    if docker.shm_size_bytes is not None:
        return docker.shm_size_bytes, f"{SHM} of the container (--shm-size)"
    return CONTAINER_SHM_BYTES, f"{SHM} of the container ({docker.program}'s default)"


def _uses_buffers(snapshot: Snapshot, launch: Launch) -> bool:
    backend = launch.value("--distributed-executor-backend")
    if snapshot.platform == "cpu":
        return True
    if backend in OTHER_EXECUTORS:
        return False
    if backend == "mp" or workers(launch) > 1:
        return True
    release = release_of(snapshot)
    if (launch.number("--data-parallel-size") or 1) > 1 and release is not None and release >= REPLICAS_COUNT_FROM:
        return True
    if snapshot.platform is None:
        raise NotKnown("it is not known for which hardware this vLLM is built, and only some builds need /dev/shm here")
    return False


def _shm_fixes(host: Host, launch: Launch) -> tuple[Fix, ...]:
    if launch.docker is not None:
        return (Fix(title=f"Start the container with --ipc=host or {ADVISED_SHM}"),)
    if host.container == "kubernetes":
        title = "Mount an emptyDir with medium: Memory at /dev/shm in the pod (sizeLimit: 8Gi)"
        return (Fix(title=title),)
    if host.container is not None:
        return (Fix(title=f"Start this container again with --ipc=host or {ADVISED_SHM}"),)
    shm = known(host.shm)
    remount = Fix(
        title="Make /dev/shm larger until the next boot",
        command=("sudo", "mount", "-o", "remount,size=8g", SHM),
    )
    if shm.total_bytes >= 2 * CHUNKS * ANSWER_CHUNK_BYTES:
        left = Fix(
            title="See what fills /dev/shm (psm_*, vllm_*: left behind by dead servers)",
            command=("ls", "-l", SHM),
        )
        return (left, remount)
    return (remount,)


@check("host-memory", causes=("host-memory",), needs=("host", "launch"))
def host_memory(snapshot: Snapshot) -> Iterator[Finding]:
    """The machine's or container's RAM is less than this launch takes.

    Why: a server is three Python processes or more, 1.2 GiB of RAM before any weight. A CPU build keeps weights and KV
    cache in RAM too: the KV cache is VLLM_CPU_KVCACHE_SPACE GiB or, from vLLM 0.20, the share --gpu-memory-utilization
    of all RAM (of the memory node), and a start with less than that available is refused. `--cpu-offload-gb` takes RAM
    for each GPU. Where a container's limit is passed the kernel kills a process, and the log names no reason.
    Fix: a smaller KV cache, less offloading, a larger limit for the container, or a smaller model.
    """
    host, launch = snapshot.host, snapshot.launch
    assert isinstance(host, Host) and isinstance(launch, Launch)
    if launch.docker is not None:
        raise NotApplicable("the container's memory is not that of this process")
    needs = memory_needs.of(snapshot, host, launch)
    found = [*_over_limit(host, needs), *_cpu_share(snapshot, host, launch)]
    yield from sorted(found, key=lambda finding: finding.severity.rank)[:1]
    yield from _address_space(host, needs)


def _cpu_share(snapshot: Snapshot, host: Host, launch: Launch) -> Iterator[Finding]:
    share = memory_needs.cpu_share(snapshot, host, launch) if snapshot.platform == "cpu" else None
    if share is None or share.wanted_bytes <= share.available_bytes - memory_needs.OWN_BYTES:
        return
    evidence = (
        f"wanted: {gib(share.wanted_bytes)} ({share.rule})",
        f"available now: {gib(share.available_bytes)} of {gib(share.total_bytes)} ({share.place})",
        f"the server's own processes take about {gib(memory_needs.OWN_BYTES)} of it before vLLM looks",
    )
    fixes = (
        Fix(
            title="Give the KV cache a fixed size that leaves room for the weights",
            launch=LaunchEdit(env={"VLLM_CPU_KVCACHE_SPACE": str(share.fitting_gib)}),
            automatic=True,
        ),
    )
    title = f"vLLM will want {gib(share.wanted_bytes)} of RAM, {gib(share.available_bytes)} is available"
    make = error if share.wanted_bytes > share.available_bytes else warning
    yield make("host-memory", title, evidence=evidence, fixes=fixes if share.fitting_gib > 0 else ())


def _over_limit(host: Host, needs: memory_needs.Needs) -> Iterator[Finding]:
    limit, name = memory_needs.limit(host)
    if limit >= needs.likely_bytes:
        return
    title = f"The {name} is {gib(limit)}, this launch takes about {gib(needs.likely_bytes)} of RAM"
    evidence = (f"{name}: {gib(limit)}", *needs.parts)
    make = error if limit < needs.certain_bytes else warning
    fixes = [Fix(title="Give the container more memory")] if name != "machine's RAM" else []
    if needs.offload_bytes:
        fixes.append(Fix(title="Offload less: drop --cpu-offload-gb", launch=LaunchEdit(unset=("--cpu-offload-gb",))))
    elif (fitting := (limit - needs.likely_bytes + needs.cache_bytes) // GIB) > 0:
        edit = LaunchEdit(env={"VLLM_CPU_KVCACHE_SPACE": str(fitting)})
        fixes.append(Fix(title="Make the KV cache smaller", launch=edit, automatic=True))
    yield make("host-memory", title, evidence=evidence, fixes=tuple(fixes))


def _address_space(host: Host, needs: memory_needs.Needs) -> Iterator[Finding]:
    limit = known(host.address_space_bytes) if host.address_space_bytes is not None else None
    if limit is None or limit >= needs.address_space_bytes:
        return
    evidence = (
        f"limit of address space (ulimit -v): {gib(limit)}",
        f"needed by the worker: at least {gib(needs.address_space_bytes)}",
    )
    fix = Fix(title="Lift the limit in the shell that starts the server", command=("ulimit", "-v", "unlimited"))
    yield error("host-memory", f"ulimit -v allows a process {gib(limit)} only", evidence=evidence, fixes=(fix,))


# Below these a start or a load is likely to run out: temporary files are sockets and small locks, the compile cache
# takes 50 to 500 MB per model (vLLM's torch.compile cache, measured on Qwen and Llama models).
TEMPORARY_BYTES = 32 * MIB
COMPILE_CACHE_BYTES = 512 * MIB


@check("disk-space", causes=("disk-full",), needs=("host",))
def disk_space(snapshot: Snapshot) -> Iterator[Finding]:
    """A disk has too little room for the download of the model, the compile cache or temporary files.

    Why: the weights of a model that is not in the cache are downloaded before anything is loaded; the sum of their
    sizes is known beforehand. torch.compile and Triton write what they build to the compile cache, and vLLM makes its
    sockets in TMPDIR.
    Fix: put the cache on a larger disk (`HF_HOME`, `--download-dir`, `VLLM_CACHE_ROOT`, `TMPDIR`), or free some room.
    """
    host, launch = snapshot.host, snapshot.launch
    assert isinstance(host, Host)
    yield from _small_disks(host, launch)
    # A path is not downloaded.
    if launch is not None and launch.model is not None and not launch.model.startswith(("/", "./", "../", "~")):
        yield from _download(snapshot, host)


def _small_disks(host: Host, launch: Launch | None) -> Iterator[Finding]:
    eager = launch is not None and launch.has("--enforce-eager")
    floors = {"temporary": TEMPORARY_BYTES, "compile-cache": 0 if eager else COMPILE_CACHE_BYTES}
    names = {"temporary": "TMPDIR", "compile-cache": "VLLM_CACHE_ROOT"}
    for disk in host.disks:
        if disk.free_bytes >= floors.get(disk.purpose, 0):
            continue
        yield warning(
            "disk-full",
            f"{disk.path} ({disk.purpose}) has {disk.free_bytes // MIB} MiB free",
            evidence=(_disk_line(disk), f"wanted: {floors[disk.purpose] // MIB} MiB"),
            fixes=(Fix(title=f"Free some room there, or point {names[disk.purpose]} to another disk"),),
        )


def _download(snapshot: Snapshot, host: Host) -> Iterator[Finding]:
    model = snapshot.model
    if isinstance(model, Unknown):
        raise NotKnown(f"what the model takes is not known: {model.reason}")
    if not isinstance(model, Model) or model.source is not ModelSource.HUB:
        return
    needed = memory_needs.download_bytes(model)
    disk = next((d for d in host.disks if d.purpose == "hub-cache"), None)
    if disk is None:
        raise NotKnown("the disk of the hub cache could not be read")
    if disk.free_bytes >= needed:
        return
    yield error(
        "disk-full",
        f"{model.given} takes {gib(needed)}, the disk of the hub cache has {gib(disk.free_bytes)} free",
        evidence=(_disk_line(disk), f"weights to download: {gib(needed)}"),
        fixes=(Fix(title="Free some room there, or point HF_HOME (or --download-dir) to a larger disk"),),
    )


def _disk_line(disk: FileSystem) -> str:
    return f"{disk.path}: {gib(disk.free_bytes)} free of {gib(disk.total_bytes)}"


# torch.cpu._is_avx512_supported (PyTorch 2.x, `aten/src/ATen/cpu/Utils.cpp`).
AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq")


@check("cpu-extensions", causes=("platform-unsupported",), needs=("host", "environment"), platforms=("cpu",))
def cpu_extensions(snapshot: Snapshot) -> Iterator[Finding]:
    """The processor lacks the vector extensions that vLLM's CPU kernels are built for.

    Why: on x86-64 the CPU build needs AVX2 at least (`cmake/cpu_extension.cmake` refuses to build without AVX2 or
    AVX512), and from 0.17.0 it loads one of `_C`, `_C_AVX512` and `_C_AVX2` by what the processor has. With none that
    fits, the first model fails for want of operators, or the process dies of an illegal instruction.
    Fix: run it on a processor with AVX2, show the virtual machine its host's processor, or install a build that brings
    the kernels for this one.
    """
    host, environment = snapshot.host, snapshot.environment
    assert isinstance(host, Host) and isinstance(environment, Environment)
    if host.machine not in ("x86_64", "AMD64"):
        raise NotApplicable(f"every {host.machine} processor that runs this system has what the kernels need")
    if environment.vllm is None:
        raise NotApplicable("vLLM is not installed")
    present = known(host.cpu_extensions)
    model = host.cpu_model if isinstance(host.cpu_model, str) else "processor of unknown name"
    evidence = (f"processor: {model}", f"extensions: {', '.join(present) or 'none of those looked for'}")
    fix = Fix(
        title="Use a processor with AVX2; in a virtual machine pass the host's processor through (QEMU: -cpu host)"
    )
    if "avx2" not in present:
        title = "This processor has no AVX2, which vLLM's CPU build needs"
        yield error("platform-unsupported", title, evidence=evidence, fixes=(fix,))
        return
    built = {name.split(".", 1)[0].rsplit("/", 1)[-1] for name in environment.vllm.extensions}
    wanted = "_C_AVX2"
    if all(flag in present for flag in AVX512):
        wanted = "_C" if "avx512_bf16" in present else "_C_AVX512"
    if built.isdisjoint(("_C_AVX2", "_C_AVX512")) or wanted in built:
        return
    title = f"vLLM's kernels for this processor ({wanted}) are not in this build"
    had = ", ".join(sorted(name for name in built if name.startswith("_C")))
    fix = Fix(title="Install a CPU build of vLLM that brings kernels for this processor")
    yield error("platform-unsupported", title, evidence=(*evidence, f"kernels installed: {had}"), fixes=(fix,))
