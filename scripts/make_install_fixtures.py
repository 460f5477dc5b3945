#!/usr/bin/env python3
"""Writes the snapshots of environments that the cases about the installation change: few distributions, real pins.

Made from fixtures/snapshots/healthy-h100.json (host and GPU) and the requirements that the named releases declare,
cut down to the distributions that the checks speak of.
"""

from collections.abc import Mapping
from pathlib import Path

from msgspec import structs

from vllm_doctor.facts import Distribution, Environment, Extension, TorchBuild, VllmBuild
from vllm_doctor.snapshot import Snapshot, read, write

FOLDER = Path(__file__).parent.parent / "fixtures" / "snapshots"
SITE = "/opt/venv/lib/python3.12/site-packages"

Release = Mapping[str, tuple[str, tuple[str, ...]]]

LIBRARIES: Release = {
    "annotated-types": ("0.8.0", ()),
    "anyio": ("4.16.0", ("idna>=2.8", 'typing_extensions>=4.15; python_version < "3.13"')),
    "certifi": ("2026.10.18", ()),
    "charset-normalizer": ("3.5.2", ()),
    "fastapi": ("0.136.3", ("pydantic>=2.9.0", "starlette>=0.46.0", "typing-extensions>=4.8.0")),
    "filelock": ("4.2.11", ()),
    "idna": ("3.20", ()),
    "mpmath": ("1.3.0", ()),
    "numpy": ("2.3.5", ()),
    "packaging": ("26.3", ()),
    "pip": ("26.1", ()),
    "protobuf": ("7.36.2", ()),
    "pydantic": (
        "2.14.3",
        (
            "annotated-types>=0.6.0",
            "pydantic-core==2.50.4",
            "typing-extensions>=4.14.1",
            'email-validator; extra == "email"',
        ),
    ),
    "pydantic-core": ("2.50.4", ("typing-extensions>=4.14.1",)),
    "pyyaml": ("6.0.3", ()),
    "regex": ("2026.11.15", ()),
    "requests": (
        "2.34.2",
        (
            "charset_normalizer<4,>=2",
            "idna<4,>=2.5",
            "urllib3<3,>=1.26",
            "certifi>=2023.5.7",
            'chardet<8,>=3.0.2; extra == "use-chardet-on-py3"',
        ),
    ),
    "safetensors": ("0.8.0", ()),
    "starlette": ("1.10.0", ("anyio<5,>=3.6.2",)),
    "sympy": ("1.14.0", ("mpmath<1.4,>=1.1.0",)),
    "tqdm": ("4.70.1", ()),
    "typing-extensions": ("4.16.0", ()),
    "urllib3": ("2.8.0", ()),
    "uvloop": ("0.23.0", ()),
}

CUDA_STACK: Release = {
    **LIBRARIES,
    "flashinfer-cubin": ("0.6.8.post1", ()),
    "flashinfer-python": ("0.6.8.post1", ("numpy", "torch")),
    "huggingface-hub": ("0.36.2", ("filelock", "pyyaml>=5.1", "tqdm>=4.42.1", "typing-extensions>=3.7.4.3")),
    "nvidia-cudnn-cu13": ("9.19.0.56", ()),
    "nvidia-nccl-cu13": ("2.28.9", ()),
    "openai": ("3.54.0", ("anyio<5,>=3.5.0", "pydantic<3,>=1.9.0", "typing-extensions<5,>=4.11")),
    "tokenizers": ("0.22.2", ("huggingface_hub<2.0,>=0.16.4",)),
    "torch": (
        "2.11.0",
        (
            "filelock",
            "typing-extensions>=4.10.0",
            "sympy>=1.13.3",
            'nvidia-cudnn-cu13==9.19.0.56; platform_system == "Linux"',
            'nvidia-nccl-cu13==2.28.9; platform_system == "Linux"',
        ),
    ),
    "torchaudio": ("2.11.0", ()),
    "torchvision": ("0.26.0", ("numpy", "torch==2.11.0")),
    "transformers": (
        "4.57.6",
        (
            "filelock",
            "huggingface-hub<1.0,>=0.34.0",
            "numpy>=1.17",
            "packaging>=20.0",
            "pyyaml>=5.1",
            "regex!=2019.12.17",
            "requests",
            "tokenizers<=0.23.0,>=0.22.0",
            "safetensors>=0.4.3",
            "tqdm>=4.27",
            'accelerate>=0.26.0; extra == "torch"',
        ),
    ),
    "vllm": (
        "0.20.2",
        (
            "regex",
            "numpy",
            "requests>=2.26.0",
            "tqdm",
            "transformers!=5.0.*,!=5.1.*,!=5.2.*,!=5.3.*,!=5.4.*,!=5.5.0,>=4.56.0",
            "tokenizers>=0.21.1",
            "protobuf!=6.30.*,!=6.31.*,!=6.32.*,!=6.33.0.*,>=5.29.6",
            "fastapi[standard]>=0.115.0",
            "openai>=2.0.0",
            "pydantic>=2.12.0",
            "typing_extensions>=4.10",
            "filelock>=3.16.1",
            "torch==2.11.0",
            "torchaudio==2.11.0",
            "torchvision==0.26.0",
            "flashinfer-python==0.6.8.post1",
            "flashinfer-cubin==0.6.8.post1",
            'ray[cgraph]>=2.48.0; extra == "ray"',
        ),
    ),
}

CPU_STACK: Release = {
    **LIBRARIES,
    "huggingface-hub": ("2.4.0", ("filelock>=3.10.0", "pyyaml>=5.1", "tqdm>=4.42.1")),
    "openai": ("3.54.0", ("anyio<5,>=3.5.0", "pydantic<3,>=1.9.0", "typing-extensions<5,>=4.14")),
    "six": ("1.17.0", ()),
    "tokenizers": ("0.23.3", ("huggingface_hub<3.0,>=0.16.4",)),
    "torch": ("2.13.0+cpu", ("filelock", "typing-extensions>=4.10.0", "sympy>=1.13.3")),
    "transformers": (
        "5.19.0",
        (
            "huggingface-hub<3.0,>=1.5.0",
            "numpy>=1.17",
            "packaging>=20.0",
            "pyyaml>=5.1",
            "regex>=2025.10.22",
            "tokenizers<0.24.0,>=0.23.1",
            "safetensors>=0.8.0",
            "tqdm>=4.67",
        ),
    ),
    "vllm": (
        "0.32.0+cpu",
        (
            "regex",
            "numpy",
            "requests>=2.33.0",
            "transformers<5.20.0,>=5.16.1",
            "huggingface_hub>=1.31.0",
            "tokenizers>=0.23.2",
            "protobuf!=6.30.*,!=6.31.*,!=6.32.*,>=5.29.6",
            "fastapi[standard]<0.137.0,>=0.133.0",
            "starlette>=1.0.1",
            "openai>=2.25.0",
            "pydantic>=2.12.0",
            'xgrammar==0.2.8; platform_machine == "x86_64"',
            "typing_extensions>=4.10",
            'six>=1.16.0; python_version > "3.11"',
            'torch==2.13.0+cpu; platform_machine == "x86_64"',
        ),
    ),
    "xgrammar": ("0.2.8", ("numpy", "pydantic", "torch>=1.10.0", "transformers>=4.38.0")),
}


def distributions(stack: Release) -> tuple[Distribution, ...]:
    """The stack as a probe writes it down, with the Pythons that vLLM supports."""
    supported = {"vllm": "<3.15,>=3.10"}
    return tuple(
        Distribution(name=n, version=v, location=SITE, requires=r, requires_python=supported.get(n))
        for n, (v, r) in sorted(stack.items())
    )


def cuda(base: Environment) -> Environment:
    """vLLM 0.20.2 for CUDA 13."""
    return structs.replace(
        base,
        distributions=distributions(CUDA_STACK),
        torch=TorchBuild(version="2.11.0+cu130", platform="cuda", cuda="13.0", path=f"{SITE}/torch"),
        vllm=build("0.20.2", "0.20.2", "cuda", ("_C.abi3.so", "_moe_C.abi3.so"), cuda="13"),
        extensions=(module("vllm", "vllm/_C.abi3.so"), module("torchvision", "torchvision/_C.so")),
    )


def cpu(base: Environment) -> Environment:
    """vLLM 0.32.0 for CPUs."""
    return structs.replace(
        base,
        distributions=distributions(CPU_STACK),
        torch=TorchBuild(version="2.13.0+cpu", platform="cpu", cuda=None, path=f"{SITE}/torch"),
        vllm=build("0.32.0+cpu", "0.32.0", "cpu", ("_C.abi3.so", "_C_AVX2.abi3.so", "spinloop.abi3.so")),
        extensions=(module("vllm", "vllm/_C.abi3.so"),),
    )


def empty(base: Environment) -> Environment:
    """A new environment: pip and nothing else."""
    return structs.replace(
        base,
        distributions=tuple(d for d in distributions(LIBRARIES) if d.name == "pip"),
        torch=None,
        vllm=None,
        extensions=(),
        commands={},
        named_by="VIRTUAL_ENV",
    )


def build(
    metadata: str, package: str, platform: str, extensions: tuple[str, ...], cuda: str | None = None
) -> VllmBuild:
    """The package vllm with its metadata."""
    return VllmBuild(
        path=f"{SITE}/vllm",
        distribution="vllm",
        metadata_version=metadata,
        package_version=package,
        platform=platform,
        extensions=extensions,
        cuda=cuda,
    )


def module(owner: str, path: str) -> Extension:
    """A compiled module that lacks nothing."""
    return Extension(owner=owner, path=f"{SITE}/{path}", needed_missing=(), undefined=(), undefined_count=0)


def main() -> None:
    """Write the three."""
    base: Snapshot = read(FOLDER / "healthy-h100.json")
    if not isinstance(base.environment, Environment):
        raise SystemExit("healthy-h100.json has no environment")
    for name, change in (("cuda", cuda), ("cpu", cpu), ("empty", empty)):
        write(structs.replace(base, environment=change(base.environment)), FOLDER / f"install-{name}.json")


if __name__ == "__main__":
    main()
