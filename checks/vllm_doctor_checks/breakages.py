"""Which violated requirements really fail, and how that is known; the rest only may."""

from collections.abc import Callable, Iterable, Iterator

from vllm_doctor.facts import Environment, VllmBuild
from vllm_doctor_checks import startup
from vllm_doctor_checks.requirements import Edge, declared_by_any_extra, release

# urllib3 and what the AWS clients require of one another: the check `cloud-libraries` knows which pairs really break.
CLOUD = frozenset(
    {"urllib3", "botocore", "boto3", "s3transfer", "aiobotocore", "requests", "requests-toolbelt", "chardet"}
)

# Tools and Python bindings of NVIDIA's that carry no library that torch loads.
NO_CUDA_WHEELS = frozenset({"nvidia-ml-py", "nvidia-cudnn-frontend", "nvidia-modelopt"})


def is_cuda_wheel(name: str) -> bool:
    """Whether the distribution is one of NVIDIA's CUDA libraries."""
    if name in NO_CUDA_WHEELS or name.startswith("nvidia-cutlass-"):
        return False
    return name == "cuda-toolkit" or name.startswith("nvidia-")


# transformers/dependency_versions_check.py, pkgs_to_check_at_runtime (5.19.0).
TRANSFORMERS_COMPARES = frozenset(
    {
        "tqdm",
        "regex",
        "packaging",
        "filelock",
        "numpy",
        "tokenizers",
        "huggingface-hub",
        "safetensors",
        "accelerate",
        "pyyaml",
    }
)


def breaks(build: VllmBuild, edge: Edge) -> str | None:
    """How this violated requirement fails for certain; None where it is not known to."""
    if not edge.violated or edge.installed is None:
        return None
    by = "vllm" if edge.by.name.startswith("vllm") else edge.by.name
    rule = _RULES.get((by, edge.target))
    if edge.by.name == "transformers" and edge.target in TRANSFORMERS_COMPARES:
        return "transformers compares this version when it is imported, and raises ImportError"
    return rule(build, edge) if rule is not None else None


def optional_comparison(environment: Environment, edges: Iterable[Edge]) -> Iterator[Edge]:
    """transformers compares accelerate too where it is installed, though only an extra requires it."""
    there = environment.distribution("accelerate")
    transformers = environment.distribution("transformers")
    if there is None or transformers is None or any(e.target == "accelerate" for e in edges):
        return
    if not any(e.target == "transformers" for e in edges):
        return
    yield from declared_by_any_extra(transformers, environment, "accelerate")


def _pydantic_core(_: VllmBuild, edge: Edge) -> str | None:
    """pydantic/version.py, _ensure_pydantic_core_version: called by pydantic/__init__.py from 2.12.0 on."""
    if release(edge.by.version) >= (2, 12, 0):
        return "pydantic compares it when it is imported, and raises SystemError"
    # Reproduced: pydantic 2.5.0 and 2.11.0 with pydantic_core 2.50.4.
    if _version(edge) >= (2, 50, 0):
        return "ImportError: cannot import name 'validate_core_schema' from 'pydantic_core'"
    return None


def _pydantic(_: VllmBuild, edge: Edge) -> str | None:
    """vllm/entrypoints/openai/protocol.py imports `model_validator` from 0.4.0 on, which pydantic 1 has not."""
    if _version(edge) < (2, 0, 0):
        return "vLLM imports model_validator of pydantic 2 when it starts: ImportError"
    return None


def _openai(build: VllmBuild, edge: Edge) -> str | None:
    """Reproduced with vLLM 0.32.0: openai 1.30.5, 1.66.0, 2.0.0 and 2.20.0 lack what it imports."""
    if release(build.version) >= startup.TRACED_RELEASE and _version(edge) <= (2, 20, 0):
        return "vLLM imports names of openai.types.responses that this openai does not have: ImportError"
    return None


def _xgrammar(build: VllmBuild, edge: Edge) -> str | None:
    """Reproduced with vLLM 0.32.0: xgrammar 0.1.20 and 0.2.0 lack what vllm/tool_parsers imports."""
    if release(build.version) >= startup.TRACED_RELEASE and _version(edge) <= (0, 2, 0):
        return "vllm/tool_parsers imports names that this xgrammar does not have: ImportError"
    return None


def _starlette(_: VllmBuild, edge: Edge) -> str | None:
    """Reproduced: fastapi 0.100 and 0.120 with starlette 1.10; fastapi 0.136.3 with starlette 0.27 (0.40 imports)."""
    if _version(edge) >= (1, 0, 0) and release(edge.by.version) <= (0, 120, 0):
        return "TypeError: Router.__init__() got an unexpected keyword argument 'on_startup'"
    if _version(edge) <= (0, 27, 0):
        return "fastapi imports starlette._exception_handler, which this starlette does not have"
    return None


def _typing_extensions(_: VllmBuild, edge: Edge) -> str | None:
    """Reproduced: torch 2.13 with typing_extensions 4.6, anyio 4.16 with 4.12: their bound is of a name they import."""
    return f"{edge.by.name} imports names that this typing_extensions does not have: ImportError"


def _version(edge: Edge) -> tuple[int, int, int]:
    return release(edge.installed.version if edge.installed is not None else None)


_RULES: dict[tuple[str, str], Callable[[VllmBuild, Edge], str | None]] = {
    ("pydantic", "pydantic-core"): _pydantic_core,
    ("vllm", "pydantic"): _pydantic,
    ("vllm", "openai"): _openai,
    ("vllm", "xgrammar"): _xgrammar,
    ("fastapi", "starlette"): _starlette,
    ("torch", "typing-extensions"): _typing_extensions,
    ("anyio", "typing-extensions"): _typing_extensions,
}
