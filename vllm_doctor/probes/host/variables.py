"""The environment variables that steer vLLM and what it stands on: every name, values only where harmless."""

from collections.abc import Mapping

from vllm_doctor import redact

PREFIXES = (
    *("VLLM_", "CUDA_", "NVIDIA_", "HF_", "HUGGINGFACE", "HUGGING_FACE_", "NCCL_", "TORCH", "PYTORCH_", "RAY_"),
    *("OMP_", "MKL_", "OPENBLAS_", "GLOO_", "TRITON_", "TRANSFORMERS_", "TOKENIZERS_", "FLASHINFER_", "PYTHON"),
    *("ROCR_", "HIP_", "HSA_", "AITER_", "ONEAPI_", "ZE_", "LD_", "KUBERNETES_", "CPU_VISIBLE_"),
)

NAMES = frozenset(
    {
        *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "TMPDIR", "XDG_CACHE_HOME", "CC", "CXX", "container"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "MASTER_ADDR", "MASTER_PORT"),
    }
)

PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})

MAXIMUM_VARIABLES = 600
MAXIMUM_CHARACTERS = 4096


def relevant(variables: Mapping[str, str]) -> dict[str, str | None]:
    """The relevant variables by name, sorted; None stands for a value that may be a secret."""
    names = sorted(n for n in variables if n.startswith(PREFIXES) or n in NAMES or n.upper() in PROXIES)
    return {name: _harmless(name, variables[name]) for name in names[:MAXIMUM_VARIABLES]}


def _harmless(name: str, value: str) -> str | None:
    if redact.is_secret_name(name):
        return None
    if name.upper() in PROXIES and "@" in value:
        # A proxy may be written without a scheme, user:password@host:port, which no pattern for URLs sees.
        scheme, separator, rest = value.rpartition("://")
        value = f"{scheme}{separator}{redact.MASK}@{rest.rpartition('@')[2]}"
    return redact.text(value)[:MAXIMUM_CHARACTERS]
