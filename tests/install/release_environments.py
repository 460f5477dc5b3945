"""Snapshots of hosts on which pip has installed a release of vLLM, from fixtures/environments."""

import json
from functools import lru_cache
from pathlib import Path

from msgspec import structs

from vllm_doctor import snapshot
from vllm_doctor.facts import Distribution, Environment, Gpus, TorchBuild, Unknown
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.snapshot import Snapshot

FIXTURES = Path(__file__).parents[2] / "fixtures"
HEALTHY = snapshot.read(FIXTURES / "snapshots" / "healthy-h100.json")
SITE = "/opt/venv/lib/python3.12/site-packages"
LAUNCH = parse_line("vllm serve Qwen/Qwen2.5-7B-Instruct --max-model-len 8192 --gpu-memory-utilization 0.9")

# Release -> the CUDA of the torch that the package index has for it.
RELEASES = {"0.6.6": "12.4", "0.10.2": "12.8", "0.19.1": "12.8", "0.31.0": "13.0"}

# Name -> board, capability, MiB and the driver of such a host.
HOSTS = {
    "h100": ("NVIDIA H100 80GB HBM3", "9.0", 81559, "580.159.03"),
    "h200": ("NVIDIA H200", "9.0", 143771, "580.159.03"),
    "a100-550": ("NVIDIA A100-SXM4-80GB", "8.0", 81920, "550.163.01"),
    "a100-535": ("NVIDIA A100-SXM4-80GB", "8.0", 81920, "535.247.01"),
    "t4": ("Tesla T4", "7.5", 15360, "580.95.05"),
    "4090": ("NVIDIA GeForce RTX 4090", "8.9", 24564, "590.48.01"),
    "l4": ("NVIDIA L4", "8.9", 23034, "580.159.03"),
    "b200": ("NVIDIA B200", "10.0", 183359, "580.159.03"),
    "v100": ("Tesla V100-SXM2-32GB", "7.0", 32768, "535.247.01"),
}


@lru_cache(maxsize=8)
def distributions(release: str) -> dict[str, Distribution]:
    """What pip installed, and pip itself."""
    listed = json.loads((FIXTURES / "environments" / f"vllm-{release}.json").read_text(encoding="utf-8"))
    found = {
        d["name"]: Distribution(
            name=d["name"],
            version=d["version"],
            location=SITE,
            requires=tuple(d["requires"]),
            requires_python=d.get("requires_python"),
        )
        for d in listed
    }
    return {**found, "pip": Distribution(name="pip", version="26.3", location=SITE)}


def on(host: str, environment: Environment) -> Snapshot:
    """That environment on that host, about to be launched."""
    board, capability, mebibytes, driver = HOSTS[host]
    assert isinstance(HEALTHY.gpus, Gpus)
    gpu = structs.replace(
        HEALTHY.gpus.devices[0],
        name=board,
        compute_capability=capability,
        memory_total_bytes=mebibytes * 2**20,
        memory_free_bytes=(mebibytes - 4) * 2**20,
    )
    gpus = structs.replace(HEALTHY.gpus, driver_version=driver, devices=(gpu,))
    return structs.replace(HEALTHY, gpus=gpus, environment=environment, launch=LAUNCH)


def environment(release: str) -> Environment:
    """The environment as pip leaves it."""
    sound = HEALTHY.environment
    assert isinstance(sound, Environment)
    assert sound.vllm is not None
    installed = distributions(release)
    cuda = RELEASES[release]
    tag = "cu" + cuda.replace(".", "")
    torch = TorchBuild(version=f"{installed['torch'].version}+{tag}", platform="cuda", cuda=cuda, path=f"{SITE}/torch")
    build = structs.replace(sound.vllm, metadata_version=release, package_version=release, cuda=cuda.partition(".")[0])
    return structs.replace(sound, distributions=tuple(installed.values()), torch=torch, vllm=build)


def with_versions(found: Environment, **versions: str) -> Environment:
    """The environment with other versions of what is installed; `_` stands for `-`."""
    wanted = {name.replace("_", "-"): version for name, version in versions.items()}
    changed = tuple(structs.replace(d, version=wanted.get(d.name, d.version)) for d in found.distributions)
    return structs.replace(found, distributions=changed)


def with_torch_of(found: Environment, release: str) -> Environment:
    """The environment after an upgrade of torch, with its CUDA libraries and companions, to those of that release."""
    other = distributions(release)
    moved = {n: d for n, d in other.items() if n.startswith(("torch", "triton", "nvidia-c", "nvidia-n", "cuda-"))}
    kept = tuple(d for d in found.distributions if d.name not in moved)
    environment_of_other = environment(release)
    return structs.replace(found, distributions=(*kept, *moved.values()), torch=environment_of_other.torch)


def unread(found: Environment) -> Environment:
    """The environment with compiled modules that could not be read."""
    return structs.replace(found, extensions=Unknown("not read"))
