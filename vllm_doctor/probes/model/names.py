"""What a misspelt model name was probably meant to be: well-known ids, neighbouring folders, cached repositories."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from vllm_doctor.paths import is_folder
from vllm_doctor.probes.model.reading import names_in

# Ids that are written without their organisation, or under a wrong one, most often in vLLM's issue threads and guides.
# Source: the examples in vLLM's docs/models/supported_models.md (0.32) and the publishers' pages on huggingface.co.
WELL_KNOWN = (
    "Qwen/Qwen2-7B-Instruct", "Qwen/Qwen2-72B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-32B-Instruct",
    "Qwen/Qwen2.5-72B-Instruct", "Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen/Qwen2.5-Coder-32B-Instruct",
    "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/QwQ-32B", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B",
    "Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B",
    "Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-Coder-30B-A3B-Instruct",
    "Qwen/Qwen3-Coder-480B-A35B-Instruct", "Qwen/Qwen3-Next-80B-A3B-Instruct", "Qwen/Qwen3-VL-8B-Instruct",
    "meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-13b-chat-hf", "meta-llama/Llama-2-70b-chat-hf",
    "meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-70B",
    "meta-llama/Meta-Llama-3-70B-Instruct", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.1-405B-Instruct", "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.3-70B-Instruct",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct", "meta-llama/Llama-4-Maverick-17B-128E-Instruct",
    "mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.1", "mistralai/Mistral-7B-Instruct-v0.2",
    "mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mixtral-8x7B-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "mistralai/Mixtral-8x22B-Instruct-v0.1", "mistralai/Mistral-Nemo-Instruct-2407",
    "mistralai/Mistral-Small-24B-Instruct-2501", "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistralai/Mistral-Large-Instruct-2411",
    "mistralai/Devstral-Small-2507", "mistralai/Ministral-8B-Instruct-2410", "mistralai/Codestral-22B-v0.1",
    "deepseek-ai/DeepSeek-V2-Lite-Chat", "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V3-0324",
    "deepseek-ai/DeepSeek-V3.1", "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1-0528",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "google/gemma-2-2b-it", "google/gemma-2-9b-it",
    "google/gemma-2-27b-it", "google/gemma-3-1b-it", "google/gemma-3-4b-it", "google/gemma-3-12b-it",
    "google/gemma-3-27b-it", "microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-3.5-mini-instruct",
    "microsoft/phi-4", "microsoft/Phi-4-mini-instruct", "openai/gpt-oss-20b", "openai/gpt-oss-120b",
    "openai/whisper-large-v3", "zai-org/GLM-4.5", "zai-org/GLM-4.5-Air", "zai-org/GLM-4.6",
    "moonshotai/Kimi-K2-Instruct", "MiniMaxAI/MiniMax-M2", "facebook/opt-125m", "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "NousResearch/Hermes-2-Pro-Llama-3-8B", "NousResearch/Hermes-3-Llama-3.1-8B", "ibm-granite/granite-3.3-8b-instruct",
    "tiiuae/falcon-7b-instruct", "bigcode/starcoder2-15b", "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "BAAI/bge-m3", "intfloat/e5-mistral-7b-instruct", "Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-8B",
)  # fmt: skip
CLOSENESS = 0.86
MAXIMUM_SUGGESTIONS = 4


def suggest_ids(name: str, cached: Iterable[str] = ()) -> tuple[str, ...]:
    """Ids that the name was probably meant to be: the same name with its organisation first, then the nearest."""
    known = tuple(dict.fromkeys((*cached, *WELL_KNOWN)))
    if name in known:
        return ()
    base = _folded(name.rpartition("/")[2])
    same = [k for k in known if _folded(k.rpartition("/")[2]) == base]
    longer = [k for k in known if _is_beginning(base, _folded(k.rpartition("/")[2]))]
    near = [k for k in known if _closeness(base, _folded(k.rpartition("/")[2])) >= CLOSENESS]
    near.sort(key=lambda k: -_closeness(base, _folded(k.rpartition("/")[2])))
    return tuple(dict.fromkeys((*same, *longer, *near)))[:MAXIMUM_SUGGESTIONS]


def _folded(name: str) -> str:
    return name.lower().replace("_", "-").replace("meta-llama-", "llama-")


def _is_beginning(base: str, other: str) -> bool:
    """`mixtral-8x7b-instruct` of `mixtral-8x7b-instruct-v0.1`: the version or the suffix was left out."""
    return len(base) >= 6 and other.startswith((f"{base}-v", f"{base}-hf", f"{base}-instruct", f"{base}-it"))


def _closeness(base: str, other: str) -> float:
    """difflib's ratio; 0 where the digits differ: another size or version is another model, not a misspelling."""
    if _digits(base) != _digits(other) or abs(len(base) - len(other)) > 4:
        return 0.0
    return difflib.SequenceMatcher(None, base, other).ratio()


def _digits(name: str) -> str:
    return "".join(c for c in name if c.isdigit())


def suggest_paths(path: Path) -> tuple[str, ...]:
    """Folders beside a path that is not there whose names are near to its own."""
    if not is_folder(path.parent):
        return ()
    names = [n for n in sorted(names_in(path.parent)[0])[:2_000] if is_folder(path.parent / n)]
    return tuple(str(path.parent / n) for n in difflib.get_close_matches(path.name, names, n=3, cutoff=0.7))
