"""Checks of the NVIDIA driver against the CUDA that vLLM's wheels or image carry."""

from collections.abc import Iterator

from msgspec import Struct

from vllm_doctor import releases
from vllm_doctor.check import CUDA_ONLY, NotApplicable, NotKnown, check, known
from vllm_doctor.drivers import (
    MINIMUM_DRIVER,
    TOOLKIT_BRANCH,
    cuda_numbers,
    numbers,
)
from vllm_doctor.facts import Environment, Gpu, Gpus, Host, NvmlFailure, NvmlUnavailable
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import devices, resolving

# The images' switch for forward compatibility (vLLM docker/Dockerfile): from 0.17.0; 0.15.0 to 0.16.0 always use it.
_SWITCH = "VLLM_ENABLE_CUDA_COMPATIBILITY"


class Runtime(Struct, frozen=True):
    """The CUDA that will run: `cuda` like (13, 0), and what carries it."""

    cuda: tuple[int, int]
    carrier: str


@check("driver-cuda", causes=("driver-too-old",), needs=(), platforms=CUDA_ONLY)
def driver_cuda(snapshot: Snapshot) -> Iterator[Finding]:
    """The NVIDIA driver is too old for the CUDA of the installed torch, or of the image.

    A driver runs the CUDA majors up to its own: from 525.60.13 every CUDA 12, from 580.65.06 every CUDA 13. Within a
    major an older driver runs a newer toolkit's compiled kernels, so a driver 535 under wheels of CUDA 12.8 is in order
    and is not reported; only kernels that come as PTX need a driver as new as the toolkit.

    Why: torch finds no usable CUDA ("The NVIDIA driver on your system is too old", error 35), and vLLM ends with
    "Failed to infer device type". vLLM 0.20.0 changed from CUDA 12 to CUDA 13, which most older hosts do not run.
    CUDA's forward compatibility package lifts the limit on data centre GPUs only; on a GeForce it fails (error 804).

    Fix: update the driver, or install the last vLLM for this driver: 0.19.1 is the last one with CUDA 12.
    """
    if not devices.is_needed(snapshot):
        raise NotApplicable("no CUDA build of vLLM is installed or launched")
    runtime = _runtime(snapshot)
    minimum = MINIMUM_DRIVER.get(runtime.cuda[0])
    if minimum is None:
        raise NotKnown(f"the driver that CUDA {runtime.cuda[0]} needs is not known to this version")
    if (refused := _torch_refused_it(snapshot, runtime, minimum)) is not None:
        yield refused
        return
    driver = _driver_version(snapshot)
    if any(devices.is_integrated(g) for g in _boards(snapshot)):
        raise NotApplicable(f"the driver of a Jetson is numbered in its own way: {driver}")
    if numbers(driver) < numbers(minimum) and not _torch_used_it(snapshot):
        yield from _below_minimum(snapshot, driver, runtime, minimum)
    else:
        yield from _ptx_of_newer_toolkit(snapshot, driver)


@check("driver-library-mismatch", causes=("driver-library-mismatch",), needs=("gpus",), platforms=CUDA_ONLY)
def driver_library_mismatch(snapshot: Snapshot) -> Iterator[Finding]:
    """The loaded kernel module and the driver's libraries are of different versions.

    The driver is a kernel module and a set of libraries (NVML, libcuda), which must be of one version. `libcuda` of a
    forward compatibility package must be newer than the kernel module.

    Why: an update of the driver changes the libraries at once and the kernel module at the next start; until then NVML
    says "Driver/library version mismatch" and CUDA fails (error 803). In a container the libraries come from the host
    when it starts: one that runs since before the update keeps the old ones.

    Fix: restart the machine, or unload the old module and load the new one; restart containers. Take a compatibility
    folder that is older than the driver out of LD_LIBRARY_PATH and of /etc/ld.so.conf.d.
    """
    gpus = snapshot.gpus
    if isinstance(gpus, NvmlUnavailable) and gpus.failure is NvmlFailure.VERSION_MISMATCH:
        yield _module_mismatch(snapshot, gpus)
        return
    answering = devices.answering(snapshot)
    host = known(snapshot.host)
    yield from _stale_compatibility(snapshot, host, answering)


def _torch_refused_it(snapshot: Snapshot, runtime: Runtime, minimum: str) -> Finding | None:
    """What torch said of the driver, where nothing else says which driver it is (a report without nvidia-smi)."""
    environment, gpus = snapshot.environment, snapshot.gpus
    torch = environment.torch if isinstance(environment, Environment) and not devices.in_container(snapshot) else None
    if torch is None or torch.driver_cuda is None or (isinstance(gpus, Gpus) and isinstance(gpus.driver_version, str)):
        return None
    return error(
        "driver-too-old",
        f"The NVIDIA driver is too old for CUDA {torch.cuda}: it runs CUDA {torch.driver_cuda} at most",
        evidence=(
            f"torch {torch.version} called the driver too old: it found one of CUDA {torch.driver_cuda}",
            f"CUDA {runtime.cuda[0]}.x needs {minimum} or newer",
        ),
        fixes=(_update_driver(snapshot, runtime),),
    )


def _torch_used_it(snapshot: Snapshot) -> bool:
    """Whether torch was asked and found CUDA: forward compatibility, or a Jetson, whose drivers count otherwise."""
    environment, launch = snapshot.environment, snapshot.launch
    inside = launch is not None and launch.docker is not None
    torch = environment.torch if isinstance(environment, Environment) and not inside else None
    return torch is not None and torch.cuda_available is True


def _driver_version(snapshot: Snapshot) -> str:
    gpus, host = known(snapshot.gpus), snapshot.host
    # Where NVML does not work the kernel module still says what it is.
    if isinstance(gpus, NvmlUnavailable) and isinstance(host, Host) and isinstance(host.kernel_module_version, str):
        version = host.kernel_module_version
    else:
        version = known(devices.answering(snapshot).driver_version)
    if len(numbers(version)) < 2:
        raise NotKnown(f"the driver calls itself {version!r}")
    return version


def _runtime(snapshot: Snapshot) -> Runtime:
    if snapshot.launch is not None and (docker := snapshot.launch.docker) is not None:
        return _of_image(docker.image, docker.tag or "", docker.version)
    environment = devices.examined(snapshot)
    torch = devices.installed_torch(environment)
    if torch.cuda is None:
        raise NotApplicable(f"torch {torch.version} is a build without CUDA")
    cuda = cuda_numbers(torch.cuda)
    if cuda is None:
        raise NotKnown(f"torch names the CUDA version {torch.cuda!r}")
    # A pasted report has no folders.
    where = f" in {environment.prefix}" if environment.prefix.startswith("/") else ""
    return Runtime(cuda, f"torch {torch.version}{where}")


def _of_image(image: str, tag: str, version: str | None) -> Runtime:
    # A tag such as `v0.20.1-cu129` names it; otherwise the image has the CUDA of its release's wheel.
    for word in tag.split("-"):
        if word.startswith("cu") and word[2:].isdecimal() and len(word) == 5:
            return Runtime((int(word[2:4]), int(word[4])), f"the image {image}")
    if version is None:
        raise NotKnown(f"the image {image} names no release of vLLM")
    release = releases.release(version)
    cuda = cuda_numbers((release.wheel_cuda or release.cuda or "") if release is not None else "")
    if cuda is None:
        raise NotKnown(f"the CUDA of vLLM {version} is not known to this version")
    return Runtime(cuda, f"the image {image}")


def _below_minimum(snapshot: Snapshot, driver: str, runtime: Runtime, minimum: str) -> Iterator[Finding]:
    boards = _boards(snapshot)
    cuda = f"{runtime.cuda[0]}.{runtime.cuda[1]}"
    title = f"The NVIDIA driver {driver} is too old for CUDA {cuda}, which needs {minimum} or newer"
    evidence = (f"driver: {driver}", f"{runtime.carrier}: CUDA {cuda}", f"CUDA {runtime.cuda[0]}.x needs {minimum}")
    fixes = _fixes(snapshot, driver, runtime)
    compatibility = _compatibility(snapshot)
    if compatibility is None:
        # The NVIDIA container runtime mounts an image's own compatibility libraries on data centre GPUs by itself.
        if devices.in_container(snapshot) and not all(devices.is_consumer(g) for g in boards):
            yield warning("driver-too-old", title, evidence=evidence, fixes=fixes)
        else:
            yield error("driver-too-old", title, evidence=evidence, fixes=fixes)
    elif any(devices.is_consumer(g) for g in boards):
        seen = (*evidence, f"forward compatibility: {compatibility}", f"{devices.labels(boards)}: no data centre GPU")
        yield error("driver-too-old", f"{title}; forward compatibility fails here (804)", evidence=seen, fixes=fixes)
    elif not boards or not all(devices.is_data_centre(g) for g in boards):
        raise NotKnown(f"whether forward compatibility ({compatibility}) works on these GPUs is not known")


def _boards(snapshot: Snapshot) -> tuple[Gpu, ...]:
    return snapshot.gpus.devices if isinstance(snapshot.gpus, Gpus) else ()


def _compatibility(snapshot: Snapshot) -> str | None:
    """Where a newer libcuda of the forward compatibility package will be taken from; None where it will not."""
    if devices.in_container(snapshot):
        asked = devices.variables(snapshot).get(_SWITCH)
        return f"{_SWITCH}={asked}" if asked not in (None, "", "0") else None
    host = known(snapshot.host)
    return next((p for p in host.libcuda_paths[:1] if "/compat/" in p), None)


def _fixes(snapshot: Snapshot, driver: str, runtime: Runtime) -> tuple[Fix, ...]:
    fixes = [_update_driver(snapshot, runtime)]
    older = resolving.fix(snapshot, f"the newest release that runs on the driver {driver}")
    if older is not None:
        fixes.append(older)
    boards = _boards(snapshot) if runtime.cuda[0] == 13 else ()
    if devices.in_container(snapshot) and boards and all(devices.is_data_centre(g) for g in boards):
        edit = LaunchEdit(env={_SWITCH: "1"})
        fixes.append(Fix(title="Use the image's forward compatibility libraries", launch=edit, automatic=True))
    return tuple(fixes)


def _update_driver(snapshot: Snapshot, runtime: Runtime) -> Fix:
    branch = MINIMUM_DRIVER[runtime.cuda[0]].partition(".")[0]
    host = snapshot.host
    inside = isinstance(host, Host) and host.container is not None
    where = " on the host, outside of this container" if inside else ""
    command: tuple[str, ...] | None = None
    if isinstance(host, Host) and not inside and not host.wsl and str(host.distribution).startswith("Ubuntu"):
        command = ("sudo", "ubuntu-drivers", "install", "--gpgpu", f"nvidia:{branch}-server")
    elif isinstance(host, Host) and host.wsl:
        where = " in Windows"
    return Fix(title=f"Update the NVIDIA driver{where} to branch {branch} or newer, and restart", command=command)


def _ptx_of_newer_toolkit(snapshot: Snapshot, driver: str) -> Iterator[Finding]:
    """FlashAttention 2 in the wheel is machine code for 8.0 and PTX: GPUs of capability 12.x compile that PTX.

    SOURCE: the fat binaries of the wheels 0.9.2 to 0.19.1 (`_vllm_fa2_C`: 80 and PTX 80); CUDA error 222. GPUs of 9.0
    use FlashAttention 3 and those of 10.x FlashInfer, so they do not meet it.
    """
    version = snapshot.vllm_version
    release = releases.release(version) if version is not None else None
    cuda = cuda_numbers(release.wheel_cuda or "") if release is not None else None
    branch = TOOLKIT_BRANCH.get(cuda) if cuda is not None else None
    if branch is None or numbers(driver)[0] >= branch:
        return
    gpus = [g for g in _boards(snapshot) if isinstance(g.compute_capability, str) and g.lost is None]
    affected = tuple(g for g in gpus if devices.capability(g)[0] == 12)
    if affected:
        assert cuda is not None
        built = f"{cuda[0]}.{cuda[1]}"
        yield warning(
            "driver-too-old",
            f"The driver {driver} cannot compile the PTX of CUDA {built} that FlashAttention 2 needs on this GPU",
            evidence=(
                f"driver: {driver}; CUDA {built} came with branch {branch}",
                f"{devices.labels(affected)}: the vLLM {version} wheel has FlashAttention 2 for it as PTX only",
            ),
            fixes=(Fix(title=f"Update the NVIDIA driver to branch {branch} or newer, and restart"),),
        )


def _module_mismatch(snapshot: Snapshot, gpus: NvmlUnavailable) -> Finding:
    host = snapshot.host
    module = host.kernel_module_version if isinstance(host, Host) else None
    library = gpus.library_version
    versions = f" ({module} and {library})" if isinstance(module, str) and library else ""
    seen = [gpus.detail]
    seen += [f"loaded kernel module: {module}"] if isinstance(module, str) else []
    seen += [f"user-space library: {library}"] if library else []
    if isinstance(host, Host) and host.container is not None:
        fixes: tuple[Fix, ...] = (Fix(title="Restart this container, and the host if its own nvidia-smi fails too"),)
    else:
        modules = ("nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia")
        unload = "Or, with no program on the GPUs, unload the old module; the next use of a GPU loads the new one"
        fixes = (
            Fix(title="Restart the machine", command=("sudo", "reboot")),
            Fix(title=unload, command=("sudo", "modprobe", "-r", *modules)),
        )
    title = f"The NVIDIA kernel module and the driver's libraries are of different versions{versions}"
    return error("driver-library-mismatch", title, evidence=tuple(seen), fixes=fixes)


def _stale_compatibility(snapshot: Snapshot, host: Host, gpus: Gpus) -> Iterator[Finding]:
    if devices.in_container(snapshot):
        yield from _image_compatibility(snapshot, known(gpus.driver_version))
        return
    path = next((p for p in host.libcuda_paths[:1] if "/compat/" in p), None)
    if path is None:
        return
    driver = known(gpus.driver_version)
    branch = _compatibility_branch(path)
    if branch is None:
        raise NotKnown(f"the version of {path} is not known")
    if numbers(driver) and numbers(driver)[0] > branch:
        yield error(
            "driver-library-mismatch",
            f"The forward compatibility libcuda (branch {branch}) is older than the driver {driver}",
            evidence=(f"libcuda.so.1 is taken from {path}", f"driver: {driver}", "CUDA error 803"),
            fixes=(Fix(title=f"Take {path.rpartition('/')[0]} out of LD_LIBRARY_PATH and /etc/ld.so.conf.d"),),
        )


def _image_compatibility(snapshot: Snapshot, driver: str) -> Iterator[Finding]:
    """The images 0.15.0 to 0.16.0 put their compat folder (12.9.1: branch 575) first, always (vllm#33447)."""
    version = snapshot.vllm_version
    if version is None:
        raise NotKnown("the image names no release of vLLM")
    if version not in ("0.15.0", "0.15.1", "0.16.0") or not numbers(driver):
        return
    consumer = any(devices.is_consumer(g) for g in _boards(snapshot))
    if numbers(driver)[0] > 575 or consumer:
        code = "803" if numbers(driver)[0] > 575 else "804"
        yield warning(
            "driver-library-mismatch",
            f"The image of vLLM {version} puts its own libcuda (branch 575) before the driver's: CUDA error {code}",
            evidence=(f"driver: {driver}", f"image: vLLM {version}, /etc/ld.so.conf.d/cuda-compat.conf"),
            fixes=(
                Fix(title="Use the image of 0.17.0 or newer, in which this is off"),
                Fix(
                    title="Put the driver's own library first",
                    launch=LaunchEdit(env={"LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu"}),
                ),
            ),
        )


def _compatibility_branch(path: str) -> int | None:
    """The driver branch of a compat folder, by the file's version or the toolkit in its path (`cuda-13.0`)."""
    version = numbers(path.rpartition("libcuda.so.")[2])
    if len(version) >= 2:
        return version[0]
    toolkit = next((p.removeprefix("cuda-") for p in path.split("/") if p.startswith("cuda-")), "")
    cuda = cuda_numbers(toolkit)
    return TOOLKIT_BRANCH.get(cuda) if cuda is not None else None
