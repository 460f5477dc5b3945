"""Which GPUs a launch will use, and what their names say; shared by the checks of GPUs and drivers."""

from collections.abc import Mapping

from msgspec import Struct

from vllm_doctor.check import NotApplicable, NotKnown, known
from vllm_doctor.facts import Environment, Gpu, Gpus, Host, NvmlFailure, NvmlUnavailable, TorchBuild, Unknown, VllmBuild
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import requirements

# Boards on which NVIDIA supports forward compatibility without exception (CUDA Compatibility guide, "Forward
# compatibility": data centre GPUs). Names as NVML spells them, without "NVIDIA" and "Tesla".
_DATA_CENTRE = frozenset(
    {"B300", "GB300", "B200", "GB200", "H200", "H100", "H800", "H20", "GH200", "A100", "A100X", "A800", "A30", "A30X"}
    | {"A40", "A10", "A10G", "A16", "A2", "L40S", "L40", "L20", "L4", "L2", "T4", "V100", "P100", "P40", "P4", "M40"}
)


class Chosen(Struct, frozen=True):
    """The GPUs that a process started so will see, in order; `missing` are the ids that name none of this machine."""

    gpus: tuple[Gpu, ...]
    variable: str | None = None
    missing: tuple[str, ...] = ()
    by_index: bool = False


def answering(snapshot: Snapshot) -> Gpus:
    """The GPUs; not applicable without an NVIDIA driver, not known where NVML refuses for another reason."""
    gpus = snapshot.gpus
    if isinstance(gpus, Unknown):
        raise NotKnown(gpus.reason)
    if isinstance(gpus, NvmlUnavailable):
        if gpus.failure in (NvmlFailure.NO_LIBRARY, NvmlFailure.DRIVER_NOT_LOADED):
            raise NotApplicable(f"no NVIDIA driver answers here: {gpus.detail}")
        raise NotKnown(gpus.detail)
    return gpus


def in_container(snapshot: Snapshot) -> bool:
    """Whether the launch starts a container."""
    return snapshot.launch is not None and snapshot.launch.docker is not None


def examined(snapshot: Snapshot) -> Environment:
    """The environment that will run; not applicable for a container launch, nor where it surely holds no vLLM."""
    environment = snapshot.environment
    if isinstance(environment, Environment) and not environment.complete and not in_container(snapshot):
        return environment
    return installed(snapshot)[0]


def installed(snapshot: Snapshot) -> tuple[Environment, VllmBuild]:
    """The environment and the vLLM in it that will run; not applicable for a container launch and without vLLM."""
    if in_container(snapshot):
        raise NotApplicable("the launch runs the image's own environment")
    environment = snapshot.environment
    if isinstance(environment, Unknown):
        raise NotKnown(environment.reason)
    if environment.vllm is None:
        raise NotApplicable(requirements.absence(environment))
    return environment, environment.vllm


def installed_torch(environment: Environment) -> TorchBuild:
    """The torch of the environment; not applicable without one."""
    if environment.torch is None:
        raise NotApplicable("no torch is installed in the environment")
    return environment.torch


def is_needed(snapshot: Snapshot) -> bool:
    """Whether anything here is to run on an NVIDIA GPU: a CUDA build of vLLM, or a launch of its image."""
    return snapshot.platform == "cuda"


def variables(snapshot: Snapshot) -> Mapping[str, str | None]:
    """The environment variables that vLLM will be started with, as far as known."""
    launch = snapshot.launch
    given: dict[str, str | None] = dict(launch.environment) if launch is not None else {}
    if in_container(snapshot) or not isinstance(snapshot.host, Host):
        return given
    dropped = launch.unset_variables if launch is not None else ()
    return {**{n: v for n, v in snapshot.host.environment.items() if n not in dropped}, **given}


def chosen(snapshot: Snapshot, gpus: Gpus) -> Chosen:
    """The GPUs that CUDA_VISIBLE_DEVICES, or the container's `--gpus`, leaves to vLLM.

    SOURCE: CUDA C++ Programming Guide, "CUDA environment variables": ids are indices or prefixes of UUIDs; what follows
    the first id that names no device is hidden too; -1 and an empty list hide all.
    """
    present = tuple(g for g in gpus.devices if g.lost is None)
    docker = snapshot.launch.docker if snapshot.launch is not None else None
    if docker is not None and docker.gpus is not None:
        present = _of_container(docker.gpus, present)
    value = variables(snapshot).get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return Chosen(present)
    return _listed(value, present, gpus.devices)


def _of_container(option: str, present: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    text = option.strip("'\"")
    if text.isdecimal():
        return present[: int(text)]
    if not text.startswith("device="):
        return present
    ids = text.removeprefix("device=").split(",")
    return tuple(g for i in ids for g in present if _names(i.strip(), g))


def _listed(value: str, present: tuple[Gpu, ...], devices: tuple[Gpu, ...]) -> Chosen:
    ids = [word.strip() for word in value.split(",")]
    found: list[Gpu] = []
    for position, word in enumerate(ids):
        match = next((g for place, g in enumerate(present) if _names(word, g, place)), None)
        if match is None:
            # -1 is how people hide GPUs on purpose: nothing that is missing.
            unknown = (i for i in ids[position:] if i != "-1" and not any(_names(i, g) for g in devices))
            missing = tuple(unknown)
            return Chosen(tuple(found), value, missing if any(missing) else (), by_index=word.isdecimal())
        found.append(match)
    return Chosen(tuple(found), value, (), by_index=any(i.isdecimal() for i in ids))


def _names(word: str, gpu: Gpu, place: int | None = None) -> bool:
    if word.isdecimal():
        return int(word[:9]) == (gpu.index if place is None else place)
    if word.startswith("MIG-"):
        return any(i.uuid.startswith(word) for i in gpu.mig_devices) or word.startswith(f"MIG-{gpu.uuid}")
    return len(word) > 4 and word.startswith("GPU-") and gpu.uuid.startswith(word)


def used(snapshot: Snapshot, gpus: Gpus) -> tuple[Gpu, ...]:
    """The GPUs that the launch will put its workers on: the first of the chosen ones; all of them without a launch.

    Not known where they differ and CUDA's own order of them is not NVML's.
    """
    visible = chosen(snapshot, gpus).gpus
    count = min(world_size(snapshot), len(visible)) if snapshot.launch is not None else len(visible)
    if count < len(gpus.devices) and len({g.name for g in gpus.devices}) > 1 and not _same_order(snapshot):
        raise NotKnown("the GPUs differ, and without CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA numbers them by speed")
    return visible[:count]


def _same_order(snapshot: Snapshot) -> bool:
    given = variables(snapshot)
    # UUIDs name a GPU whatever the order is.
    named = (given.get("CUDA_VISIBLE_DEVICES") or "").startswith(("GPU-", "MIG-"))
    return named or given.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"


def world_size(snapshot: Snapshot) -> int:
    """The number of GPUs that the launch asks for on this machine (tensor x pipeline x data parallel); at least 1."""
    launch = snapshot.launch
    if launch is None:
        return 1
    if launch.has("--device-ids"):
        raise NotKnown("--device-ids chooses the GPUs")
    local = launch.number("--data-parallel-size-local") or launch.number("--data-parallel-size") or 1
    sizes = (launch.number("--tensor-parallel-size") or 1, launch.number("--pipeline-parallel-size") or 1, local)
    return max(1, sizes[0] * sizes[1] * sizes[2])


def is_data_centre(gpu: Gpu) -> bool:
    """Whether the board is a data centre GPU by its name."""
    words = gpu.name.replace("-", " ").split()
    return not is_consumer(gpu) and "RTX" not in words and any(w in _DATA_CENTRE for w in words)


def is_consumer(gpu: Gpu) -> bool:
    """Whether the board is a GeForce or a TITAN."""
    return "GeForce" in gpu.name or "TITAN" in gpu.name.upper()


def is_integrated(gpu: Gpu) -> bool:
    """Whether it is the GPU of a Jetson or DRIVE, whose drivers come with its system (`580.00`, `540.4.0`)."""
    return not {"Thor", "Orin", "Xavier", "Tegra"}.isdisjoint(gpu.name.replace("(", " ").split())


def capability(gpu: Gpu) -> tuple[int, int]:
    """The compute capability as numbers."""
    return parsed_capability(known(gpu.compute_capability))


def parsed_capability(text: str) -> tuple[int, int]:
    """`8.6` as (8, 6)."""
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise NotKnown(f"{text!r} is no compute capability")
    return int(major[:4]), int(minor[:4])


def label(gpu: Gpu) -> str:
    """How a finding names the GPU."""
    return f"GPU {gpu.index} ({gpu.name})"


def labels(gpus: tuple[Gpu, ...]) -> str:
    """How a finding names several: by their indices, with the name where they share one."""
    if len(gpus) == 1:
        return label(gpus[0])
    names = {g.name for g in gpus}
    shared = f" ({names.pop()})" if len(names) == 1 else ""
    return f"GPUs {', '.join(str(g.index) for g in gpus)}{shared}"


def gib(count: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{count / 2**30:.1f} GiB"
