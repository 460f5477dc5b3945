"""What `vllm serve` imports before it serves: the distributions without which it cannot start."""

from vllm_doctor.facts import VllmBuild
from vllm_doctor_checks.requirements import release

# Traced on vLLM 0.32.0 (CPU build): every import statement that ran between `vllm serve MODEL` and the start of the
# engine, with all frames above it; kept are those that no `try` with a handler for ImportError or Exception encloses.
# Then each was hidden in turn, and the same imports failed. The value is the first module that imports it so.
IMPORTED_AT_START = {
    "aiohappyeyeballs": "aiohttp/connector.py",
    "aiohttp": "vllm/connections.py",
    "aiosignal": "aiohttp/tracing.py",
    "annotated-doc": "fastapi/applications.py",
    "annotated-types": "pydantic/fields.py",
    "anyio": "fastapi/routing.py",
    "apache-tvm-ffi": "xgrammar/exception.py",
    "attrs": "aiohttp/client.py",
    "cachetools": "vllm/utils/cache.py",
    "cbor2": "vllm/utils/hashing.py",
    "certifi": "requests/certs.py",
    "click": "uvicorn/main.py",
    "cloudpickle": "vllm/v1/serial_utils.py",
    "einops": "vllm/v1/attention/ops/vit_attn_wrappers.py",
    "fastapi": "vllm/entrypoints/serve/__init__.py",
    "filelock": "vllm/model_executor/model_loader/weight_utils.py",
    "frozenlist": "aiosignal/__init__.py",
    "h11": "httpcore2/_sync/http11.py",
    "httpcore2": "huggingface_hub/hf_api.py",
    "httpx2": "huggingface_hub/file_download.py",
    "huggingface-hub": "vllm/engine/arg_utils.py",
    "idna": "httpx2/_urls.py",
    "jinja2": "vllm/renderers/hf.py",
    "llguidance": "vllm/v1/structured_output/backend_guidance.py",
    "markupsafe": "jinja2/ext.py",
    "mistral-common": "vllm/tokenizers/mistral.py",
    "mpmath": "sympy/__init__.py",
    "msgspec": "vllm/sampling_params.py",
    "multidict": "aiohttp/hdrs.py",
    "networkx": "torch/fx/experimental/symbolic_shapes.py",
    "numpy": "vllm/utils/torch_utils.py",
    "openai": "vllm/entrypoints/mcp/tool.py",
    "oss-harmony": "vllm/entrypoints/mcp/tool_server.py",
    "packaging": "vllm/utils/torch_utils.py",
    "partial-json-parser": "vllm/tool_parsers/utils.py",
    "pillow": "vllm/multimodal/hasher.py",
    "prometheus-client": "vllm/v1/metrics/perf.py",
    "propcache": "yarl/_url.py",
    "psutil": "vllm/utils/cpu_resource_utils.py",
    "py-cpuinfo": "vllm/usage/usage_lib.py",
    "pybase64": "vllm/multimodal/media/audio.py",
    "pydantic": "vllm/entrypoints/serve/engine/protocol.py",
    "pydantic-core": "vllm/config/multimodal.py",
    "pyyaml": "vllm/utils/argparse_utils.py",
    "pyzmq": "vllm/utils/network_utils.py",
    "regex": "vllm/utils/platform_utils.py",
    "requests": "vllm/connections.py",
    "safetensors": "vllm/transformers_utils/config.py",
    "sentencepiece": "vllm/tokenizers/mistral.py",
    "sniffio": "openai/_utils/_utils.py",
    "starlette": "vllm/entrypoints/serve/utils/api_utils.py",
    "sympy": "torch/fx/experimental/symbolic_shapes.py",
    "tokenizers": "vllm/v1/engine/detokenizer.py",
    "torch": "vllm/env_override.py",
    "tqdm": "vllm/model_executor/layers/attention/mla_attention.py",
    "transformers": "vllm/model_executor/layers/quantization/base_config.py",
    "truststore": "httpcore2/_ssl.py",
    "typing-extensions": "vllm/engine/arg_utils.py",
    "typing-inspection": "pydantic/errors.py",
    "urllib3": "vllm/utils/network_utils.py",
    "uvicorn": "vllm/entrypoints/launchers/launcher.py",
    "uvloop": "vllm/v1/utils.py",
    "watchfiles": "vllm/entrypoints/launchers/utils/ssl.py",
    "xgrammar": "vllm/parser/abstract_parser.py",
    "yarl": "aiohttp/client.py",
}
TRACED_RELEASE = (0, 32, 0)

# The part of the table that older releases import at start as well: they are imported at module level by vllm/utils,
# vllm/connections.py, vllm/engine/arg_utils.py, vllm/transformers_utils/config.py, vllm/sampling_params.py and
# vllm/entrypoints/openai/api_server.py and protocol.py, or by torch, transformers, fastapi, aiohttp and requests.
IMPORTED_BY_EVERY_RELEASE = frozenset(
    {
        "aiohttp",
        "aiosignal",
        "annotated-types",
        "anyio",
        "certifi",
        "cloudpickle",
        "fastapi",
        "filelock",
        "frozenlist",
        "huggingface-hub",
        "idna",
        "jinja2",
        "markupsafe",
        "msgspec",
        "multidict",
        "numpy",
        "openai",
        "packaging",
        "pillow",
        "prometheus-client",
        "psutil",
        "pydantic",
        "pydantic-core",
        "pyyaml",
        "pyzmq",
        "requests",
        "safetensors",
        "starlette",
        "tokenizers",
        "torch",
        "tqdm",
        "transformers",
        "typing-extensions",
        "urllib3",
        "uvicorn",
        "uvloop",
        "yarl",
    }
)


def importer(build: VllmBuild, name: str) -> str | None:
    """The module that imports the distribution when this vLLM starts; None where it is not known to do so."""
    if name not in IMPORTED_AT_START:
        return None
    if release(build.version) >= TRACED_RELEASE or name in IMPORTED_BY_EVERY_RELEASE:
        return IMPORTED_AT_START[name]
    return None


# Modules of Python's own that were loaded once vllm/entrypoints/openai/api_server.py of vLLM 0.32.0 had been imported
# (sys.modules against sys.stdlib_module_names); those that Python loads before it looks into the launch's folder, and
# the few that only some releases reach, are left out.
_STANDARD_MODULES = """
    argparse array ast asyncio base64 binascii bisect bz2 calendar collections concurrent configparser
    contextlib contextvars copy copyreg csv ctypes dataclasses datetime decimal difflib dis email enum fcntl
    fnmatch functools getpass gettext glob grp gzip hashlib heapq hmac html http importlib inspect ipaddress
    json keyword linecache locale logging lzma math mimetypes mmap multiprocessing netrc numbers opcode operator
    pathlib pickle pkgutil platform pprint pyexpat queue quopri random re reprlib resource runpy secrets select
    selectors shlex shutil signal socket socketserver sqlite3 ssl statistics string struct subprocess sysconfig
    tarfile tempfile termios textwrap threading token tokenize traceback types typing unicodedata unittest
    urllib uuid warnings weakref xml zipfile zlib zoneinfo
"""
STANDARD_MODULES = frozenset(_STANDARD_MODULES.split())
