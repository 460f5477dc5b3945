"""What kind of server answers: vLLM, another server of models, a gateway or proxy, or something else."""

from msgspec import Struct

from vllm_doctor import redact
from vllm_doctor.client.replies import Reply


class Kind(Struct, frozen=True):
    """What answered: its name, the sign that gave it away, and whether it is a server of models other than vLLM.

    `gateway`: it may stand in front of a vLLM.
    """

    name: str
    sign: str
    other: bool = False
    gateway: bool = False


# Body of GET / or of an error, lower case -> name (each server's own source: Ollama server/routes.go, LM Studio's and
# llama.cpp's error texts, text-generation-inference router, Open WebUI's page).
_BODIES = (
    ("ollama is running", "Ollama"),
    ("llama.cpp", "llama.cpp server"),
    ("unexpected endpoint or method", "LM Studio"),
    ("open webui", "Open WebUI"),
    ("litellm", "LiteLLM"),
    ("text generation inference", "Text Generation Inference (TGI)"),
    ("localai", "LocalAI"),
)
_GATEWAYS = ("LiteLLM", "Open WebUI")

# `owned_by` of /v1/models (each server's own source).
_OWNERS = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "library": "Ollama",
    "llamacpp": "llama.cpp server",
    "organization_owner": "LM Studio",
    "tensorrt_llm": "TensorRT-LLM",
    "lmdeploy": "LMDeploy",
}

# Start of the `server` header, lower case.
_PROXIES = (
    ("nginx", "nginx"), ("openresty", "nginx (OpenResty)"), ("apache", "Apache"), ("caddy", "Caddy"),
    ("cloudflare", "Cloudflare"), ("envoy", "Envoy"), ("istio-envoy", "Envoy (Istio)"), ("awselb", "AWS load balancer"),
    ("microsoft-iis", "IIS"), ("haproxy", "HAProxy"), ("kong", "Kong"), ("traefik", "Traefik"), ("gws", "Google"),
)  # fmt: skip
_MODEL_SERVERS = (("llama.cpp", "llama.cpp server"), ("ollama", "Ollama"), ("tritonserver", "Triton"))


def from_headers(reply: Reply) -> Kind | None:
    """What the headers of any answer tell."""
    server = reply.headers.get("server", "").lower()
    litellm = next((name for name in reply.headers if name.startswith("x-litellm")), None)
    if litellm is not None:
        return Kind("LiteLLM", f"header {litellm}", gateway=True)
    for start, name in _MODEL_SERVERS:
        if server.startswith(start):
            return Kind(name, f"header server: {redact.line(server, 60)}", other=True)
    for start, name in _PROXIES:
        if server.startswith(start):
            return Kind(name, f"header server: {redact.line(server, 60)}", gateway=True)
    return None


def from_owner(owner: str | None) -> Kind | None:
    """What `owned_by` in the list of models tells."""
    name = _OWNERS.get((owner or "").lower())
    return None if name is None else Kind(name, f"/v1/models says owned_by {owner}", other=name != "vLLM")


def from_body(reply: Reply) -> Kind | None:
    """What the body of GET / or of an error tells."""
    text = reply.body[:20_000].decode("utf-8", "replace").lower()
    for mark, name in _BODIES:
        if mark in text:
            return Kind(name, f"{reply.url} answers {mark!r}", other=name not in _GATEWAYS, gateway=name in _GATEWAYS)
    return None


def from_answers(version: Reply, root: Reply, info: Reply, sglang: Reply) -> Kind | None:
    """What the answers to /version, /, /info and /get_model_info tell, asked where there is no list of models."""
    found = version.object()
    if isinstance(found.get("version"), str) and version.ok and set(found) == {"version"}:
        return Kind("vLLM", f"/version says {redact.line(found['version'], 40)}")
    if sglang.ok and "model_path" in sglang.object():
        return Kind("SGLang", "/get_model_info answers with model_path", other=True)
    if info.ok and {"model_id", "version"} <= set(info.object()):
        return Kind("Text Generation Inference (TGI)", "/info answers with model_id", other=True)
    return from_body(root) or from_headers(root)
