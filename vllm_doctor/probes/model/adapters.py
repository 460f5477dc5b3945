"""Reads the LoRA adapters that a launch names: the adapter's config, and the modules that have weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from vllm_doctor.facts import Launch, LoraAdapter, ModelProblem
from vllm_doctor.paths import is_file, is_folder
from vllm_doctor.probes.model.reading import Unreadable, open_regular, read_object
from vllm_doctor.probes.model.weights import header_length, parse_header

MAXIMUM_BYTES = 2**20
MAXIMUM_HEADER_BYTES = 16 * 2**20
MAXIMUM_ADAPTERS = 64
CONFIG = "adapter_config.json"

# Inits that only set the first weights: an adapter saved with them is a plain LoRA (vLLM 0.32 lora/peft_helper.py).
PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
# PEFT features that vLLM refuses when they are on (the same file, `_validate_features`, and `bias`).
REFUSED = {"use_dora": "DoRA", "lora_bias": "lora_bias", "layer_replication": "layer_replication",
           "alora_invocation_tokens": "Activated LoRA", "use_bdlora": "BD-LoRA", "use_qalora": "QALoRA"}  # fmt: skip


def named_adapters(launch: Launch, base: Path, home: str | None) -> tuple[LoraAdapter, ...]:
    """The adapters of `--lora-modules` that are local folders; ids of the hub are listed without facts."""
    from vllm_doctor.probes.model.locating import is_repo_id, local_path

    adapters = []
    for name, path in _pairs(launch):
        folder = local_path(path, base, home)
        if not is_folder(folder) and is_repo_id(path):
            adapters.append(LoraAdapter(name=name, path=path))
        else:
            adapters.append(read_adapter(name, path, folder))
    return tuple(adapters[:MAXIMUM_ADAPTERS])


def _pairs(launch: Launch) -> list[tuple[str, str]]:
    """`name=path` words, or JSON objects with `name` and `path` (vLLM 0.32 launchers/cli_args.py, LoRAParserAction)."""
    pairs = []
    for word in (w for use in launch.uses("--lora-modules") for w in use.values):
        if word.startswith("{"):
            pairs.extend(_of_json(word))
        elif "=" in word:
            name, _, path = word.partition("=")
            pairs.append((name, path))
    return pairs


def _of_json(word: str) -> list[tuple[str, str]]:
    try:
        value = msgspec.json.decode(word)
    except (msgspec.DecodeError, RecursionError):
        return []
    name, path = (value.get("name"), value.get("path")) if isinstance(value, dict) else (None, None)
    return [(name, path)] if isinstance(name, str) and isinstance(path, str) else []


def read_adapter(name: str, path: str, folder: Path) -> LoraAdapter:
    """The facts of one adapter's folder."""
    try:
        config = read_object(folder / CONFIG, MAXIMUM_BYTES)
        modules = _tensor_modules(folder)
    except Unreadable as unreadable:
        return LoraAdapter(name=name, path=path, problem=unreadable.problem)
    return structs.replace(described(name, path, config, modules), problem=_lacking(config, folder, modules))


def described(name: str, path: str, config: Mapping[str, Any], modules: tuple[str, ...] | None) -> LoraAdapter:
    """The facts in an adapter_config.json."""
    target = config.get("target_modules")
    base = config.get("base_model_name_or_path")
    return LoraAdapter(
        name=name,
        path=path,
        rank=_rank(config),
        base_model=base if isinstance(base, str) else None,
        target_modules=_texts(target) if isinstance(target, list) else ((target,) if isinstance(target, str) else ()),
        tensor_modules=modules,
        unsupported=_unsupported(config),
    )


def _texts(values: list[Any]) -> tuple[str, ...]:
    return tuple(v for v in values[:512] if isinstance(v, str))


def _rank(config: Mapping[str, Any]) -> int | None:
    """The highest rank, as vLLM compares it (lora/peft_helper.py `validate_legal`)."""
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    counts = [r for r in ranks if isinstance(r, int) and not isinstance(r, bool) and 0 < r < 2**31]
    return max(counts, default=None)


def _unsupported(config: Mapping[str, Any]) -> tuple[str, ...]:
    found = [name for key, name in REFUSED.items() if config.get(key)]
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        found.append(f"init_lora_weights={init[:40]}")
    if config.get("bias", "none") != "none":
        found.append(f"bias={str(config['bias'])[:40]}")
    saved = config.get("modules_to_save")
    if isinstance(saved, list) and (other := [m for m in _texts(saved) if m not in ("classifier", "score")]):
        found.append(f"modules_to_save={','.join(other)[:80]}")
    return tuple(found)


def _lacking(config: Mapping[str, Any], folder: Path, modules: tuple[str, ...] | None) -> ModelProblem | None:
    """The fields without a default of vLLM's PEFTHelper, and the weights."""
    gone = [key for key in ("r", "lora_alpha", "target_modules") if key not in config]
    if gone:
        return ModelProblem(kind="missing", file=CONFIG, detail=f"{CONFIG} lacks {', '.join(gone)}")
    if modules is None and not any(is_file(folder / f"adapter_model.{e}") for e in ("bin", "pt", "safetensors")):
        return ModelProblem(kind="missing", file="adapter_model.safetensors", detail="no weights in the folder")
    return None


def _tensor_modules(folder: Path) -> tuple[str, ...] | None:
    """The last names of the modules that have LoRA weights; None where the weights are no safetensors."""
    path = folder / "adapter_model.safetensors"
    if not is_file(path):
        return None
    file, size = open_regular(path)
    with file:
        length = header_length(file.read(8), path.name, size)
        if length > MAXIMUM_HEADER_BYTES:
            return None
        header = parse_header(file.read(length), path.name)
    return tuple(sorted({m for n in header.shapes if (m := _module(n))})[:512])


def _module(tensor: str) -> str:
    """`q_proj` of `...layers.0.self_attn.q_proj.lora_A.weight`; empty for experts and embeddings."""
    before, found, _ = tensor.partition(".lora_")
    if not found or ".experts" in before or "base_layer" in before:
        return ""
    return before.rpartition(".")[2]
