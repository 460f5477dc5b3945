"""Checks of a GPU's compute capability: against the kernels of the wheels, and against what the launch asks for."""

from collections.abc import Iterator

from vllm_doctor import releases
from vllm_doctor.check import CUDA_ONLY, NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Gpu, Launch, Model, TorchBuild, Unknown, VllmBuild
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.releases.resolver import runs
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import devices, resolving

# vLLM 0.9.0 and 0.9.1 carry PTX for 10.0, which a 12.0 compiles (docker/Dockerfile, torch_cuda_arch_list).
_WITH_PTX_FOR_NEWER = frozenset({"0.9.0", "0.9.0.1", "0.9.1"})

# supports_compute_capability of each backend in vllm/v1/attention/backends (0.13.0 to 0.33.0): the least that all of
# these releases ask for. Only as --attention-backend, which exists from 0.13.0 and is checked at the start.
_BACKEND_FLOORS = {
    "FLASH_ATTN": (8, 0),
    "FLASHINFER": (7, 5),
    "FLASH_ATTN_MLA": (9, 0),
    "FLASHMLA": (9, 0),
    "FLASHMLA_SPARSE": (9, 0),
    "CUTLASS_MLA": (10, 0),
    "FLASHINFER_MLA": (10, 0),
}

# The checkpoint's `modelopt` may turn out to be modelopt_fp4 or mixed, whose floors are lower.
_AMBIGUOUS_METHODS = frozenset({"modelopt"})


@check("gpu-arch", causes=("arch-unsupported",), needs=("gpus",), platforms=CUDA_ONLY)
def gpu_arch(snapshot: Snapshot) -> Iterator[Finding]:
    """The installed torch or vLLM holds no kernels for this GPU.

    A wheel holds machine code for some compute capabilities. A GPU runs code of its own major version up to its own
    minor; nothing crosses a major version.

    Why: the first kernel ends with "no kernel image is available for execution on the device" (CUDA error 209); torch
    warns before that the capability "is not compatible with the current PyTorch installation". Pascal and older were
    never in vLLM's wheels; V100 is in them to vLLM 0.19.1; Blackwell (10.0, 12.0) is in torch's from 2.8.

    Fix: install a release whose wheels have the GPU: 0.19.1 for V100, 0.10.2 or newer for Blackwell.
    """
    if not devices.is_needed(snapshot):
        raise NotApplicable("no CUDA build of vLLM is installed or launched")
    gpus = devices.used(snapshot, devices.answering(snapshot))
    wheels, unread = list(_wheels(snapshot)), _unread_torch(snapshot)
    for gpu in {g.name: g for g in reversed(gpus)}.values():
        yield from _without_kernels(snapshot, gpu, wheels, alone=len({g.name for g in gpus}) == 1)
    if unread is not None:
        raise NotKnown(f"the kernels in this build of torch ({unread}) are not known to this version")


def _unread_torch(snapshot: Snapshot) -> str | None:
    """The torch whose kernels are not known to this version; None where they are, or it is the image's."""
    if devices.in_container(snapshot):
        return None
    torch = devices.installed_torch(devices.installed(snapshot)[0])
    return None if any(_torch_wheel(torch)) else torch.version


Wheel = tuple[str, tuple[str, ...], str]


def _wheels(snapshot: Snapshot) -> Iterator[Wheel]:
    """What will run: its name, the capabilities it has code for, and how that is known."""
    if devices.in_container(snapshot):
        version = snapshot.vllm_version
        if version is None:
            raise NotKnown("the image names no release of vLLM")
        yield _vllm_wheel(version)
        return
    environment, build = devices.installed(snapshot)
    yield from _torch_wheel(devices.installed_torch(environment))
    if _is_published(build):
        assert build.version is not None
        yield _vllm_wheel(build.version)


def _vllm_wheel(version: str) -> Wheel:
    release = releases.release(version)
    if release is None:
        raise NotKnown(f"the kernels in the wheel of vLLM {version} are not known to this version")
    return f"vLLM {version}", release.kernel_architectures, "code in the wheel"


def _is_published(build: VllmBuild) -> bool:
    """Whether it is the wheel whose code was read: the one of the package index.

    A source or development build has the kernels that it was told to have, and so has the release's wheel for another
    CUDA (`0.20.0+cu129`).
    """
    version, _, local = (build.metadata_version or build.version or "").partition("+")
    release = releases.release(version)
    if release is None or build.editable or ".dev" in version:
        return False
    return not local or local == f"cu{(release.wheel_cuda or '').replace('.', '')}"


def _torch_wheel(torch: TorchBuild) -> Iterator[Wheel]:
    if torch.cuda is None:
        raise NotApplicable(f"torch {torch.version} is a build without CUDA")
    public, _, local = torch.version.partition("+")
    if local and not local.startswith("cu"):
        return
    known_release = releases.torch_release(public)
    if known_release is not None and known_release.cuda == torch.cuda and known_release.architectures:
        yield f"torch {torch.version}", known_release.architectures, "code in the wheel"


def _without_kernels(snapshot: Snapshot, gpu: Gpu, wheels: list[Wheel], *, alone: bool) -> Iterator[Finding]:
    own = devices.capability(gpu)
    if own[0] == 11:
        raise NotKnown("whether these wheels run on compute capability 11.0 (Thor) is not known to this version")
    for name, architectures, source in wheels:
        version = name.rpartition(" ")[2]
        if runs(own, architectures) or (own[0] >= 10 and version in _WITH_PTX_FOR_NEWER):
            continue
        report = error if alone else warning
        yield report(
            "arch-unsupported",
            f"{name} has no kernels for the {gpu.name} (compute capability {own[0]}.{own[1]})",
            evidence=(
                f"{devices.label(gpu)}: compute capability {own[0]}.{own[1]}",
                f"{name}: {source} for {', '.join(architectures)}",
            ),
            fixes=_releases_for(snapshot, own),
        )
        return


def _releases_for(snapshot: Snapshot, capability: tuple[int, int]) -> tuple[Fix, ...]:
    if capability < (7, 0):
        return (
            Fix(title="Use a GPU of compute capability 7.5 or higher: no vLLM wheel ever had kernels for this one"),
        )
    found = resolving.fix(snapshot, "the newest release whose wheels have kernels for the GPUs here")
    return (found,) if found is not None else (Fix(title="Use another GPU: no vLLM release runs on all of these"),)


@check("gpu-feature", causes=("feature-needs-newer-gpu",), needs=("gpus", "launch"), platforms=CUDA_ONLY)
def gpu_feature(snapshot: Snapshot) -> Iterator[Finding]:
    """The launch asks for a dtype, a quantization or an attention backend that this GPU is too old for.

    bfloat16 needs compute capability 8.0; each quantization method and attention backend has its own floor, which
    changes from release to release. With `--dtype auto` vLLM falls back to float16 by itself.

    Why: the start ends with "Bfloat16 is only supported on GPUs with compute capability of at least 8.0", "The
    quantization method ... is not supported for the current GPU. Minimum capability: ..." or "Selected backend ... is
    not valid for this configuration".

    Fix: `--dtype half`; a checkpoint in another quantization; leave the choice of the backend to vLLM.
    """
    launch = snapshot.launch
    assert launch is not None
    gpus = devices.used(snapshot, devices.answering(snapshot))
    if not gpus:
        raise NotApplicable("no GPU is visible to the launch")
    oldest = min(gpus, key=devices.capability)
    yield from _dtype(launch, oldest)
    yield from _backend(launch, oldest)
    yield from _quantization(snapshot, launch, oldest)


def _dtype(launch: Launch, gpu: Gpu) -> Iterator[Finding]:
    if launch.value("--dtype") == "bfloat16" and devices.capability(gpu) < (8, 0):
        yield _too_old(gpu, "--dtype bfloat16", (8, 0), Fix(
            title="Use float16", launch=LaunchEdit(set={"--dtype": "half"}), automatic=True
        ))  # fmt: skip


def _backend(launch: Launch, gpu: Gpu) -> Iterator[Finding]:
    name = (launch.value("--attention-backend") or "").upper()
    floor = _BACKEND_FLOORS.get(name)
    if floor is not None and devices.capability(gpu) < floor:
        fix = Fix(title="Let vLLM choose", launch=LaunchEdit(unset=("--attention-backend",)), automatic=True)
        yield _too_old(gpu, f"--attention-backend {name}", floor, fix)


def _quantization(snapshot: Snapshot, launch: Launch, gpu: Gpu) -> Iterator[Finding]:
    asked = launch.value("--quantization")
    method = asked or _of_checkpoint(snapshot)
    if method is None or (asked is None and method in _AMBIGUOUS_METHODS):
        return
    version = snapshot.vllm_version
    release = releases.release(version) if version is not None else None
    if release is None:
        raise NotKnown(f"what {method} needs in vLLM {version or 'of this image'} is not known to this version")
    floor = release.quantization.get(method)
    own = devices.capability(gpu)
    if floor is not None and own[0] * 10 + own[1] < floor:
        what = f"--quantization {method}" if asked else f"the checkpoint's quantization {method}"
        fix = Fix(title="Serve a checkpoint in a quantization that this GPU runs, or an unquantized one")
        yield _too_old(gpu, f"{what} in vLLM {version}", (floor // 10, floor % 10), fix)


def _of_checkpoint(snapshot: Snapshot) -> str | None:
    model = snapshot.model
    if not isinstance(model, Model):
        if isinstance(model, Unknown):
            raise NotKnown(model.reason)
        return None
    return known_config_method(model)


def known_config_method(model: Model) -> str | None:
    """The quantization method that the model's config names; raises NotKnown where the config was not read."""
    if isinstance(model.config, Unknown):
        raise NotKnown(model.config.reason)
    return model.config.quantization_method


def _too_old(gpu: Gpu, what: str, floor: tuple[int, int], fix: Fix) -> Finding:
    own = known(gpu.compute_capability)
    return error(
        "feature-needs-newer-gpu",
        f"{what} needs compute capability {floor[0]}.{floor[1]}; the {gpu.name} has {own}",
        evidence=(f"{devices.label(gpu)}: compute capability {own}", f"{what}: {floor[0]}.{floor[1]} or higher"),
        fixes=(fix,),
    )
