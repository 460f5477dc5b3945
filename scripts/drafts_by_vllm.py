"""Prints a line of fixtures/memory/drafts_by_vllm.json: the draft that vLLM builds beside a model.

Usage: PYTHON scripts/drafts_by_vllm.py TARGET.json SPECULATIVE.json [DRAFT.json] [TP ...], with an interpreter that has
vLLM for CPU. SPECULATIVE.json holds the values of --speculative-config; with DRAFT.json its `model` is that config.
As scripts/built_by_vllm.py, on torch's meta device: nothing is loaded or run.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from built_by_vllm import cache_of, groups, register


def drafted(target: str, speculative: dict[str, Any], tp: int) -> dict[str, Any]:
    """Bytes of the draft's parameters on one rank, those of its embedding and its heads, and its layers' caches."""
    import torch
    from vllm.config import set_current_vllm_config  # type: ignore[import-not-found]
    from vllm.distributed import parallel_state  # type: ignore[import-not-found]
    from vllm.engine.arg_utils import EngineArgs  # type: ignore[import-not-found]
    from vllm.model_executor.layers.vocab_parallel_embedding import (  # type: ignore[import-not-found]
        ParallelLMHead,
        VocabParallelEmbedding,
    )
    from vllm.model_executor.model_loader.utils import initialize_model  # type: ignore[import-not-found]

    config = EngineArgs(
        model=target,
        skip_tokenizer_init=True,
        enforce_eager=True,
        load_format="dummy",
        speculative_config=speculative,
        max_model_len=2048,
    ).create_engine_config()
    draft = config.speculative_config.draft_model_config
    config.parallel_config.tensor_parallel_size = tp
    with set_current_vllm_config(config):
        if parallel_state._WORLD is None:
            groups()
        for group, ranks in ((parallel_state._TP, tp), (parallel_state._PP, 1)):
            group.world_size, group.rank_in_group, group.rank = ranks, 0, 0
            group.ranks = list(range(ranks))
        torch.set_default_dtype(draft.dtype)
        with torch.device("meta"):
            model = initialize_model(vllm_config=config, model_config=draft)
        torch.set_default_dtype(torch.float32)
        caches: dict[tuple[Any, ...], int] = {}
        # Gemma 4's assistant looks into the target's caches: the proposer joins them after it is built.
        alone = type(model).__name__ != "Gemma4MTP"
        for layer in config.compilation_config.static_forward_context.values():
            spec = layer.get_kv_cache_spec(config) if alone and hasattr(layer, "get_kv_cache_spec") else None
            if spec is not None:
                caches[cache_of(spec)] = caches.get(cache_of(spec), 0) + 1
    if os.environ.get("SHOW_NAMES"):
        print("\n".join(f"{n} {tuple(p.shape)} {p.dtype}" for n, p in model.named_parameters()), file=sys.stderr)
    divided = [m for m in model.modules() if isinstance(m, VocabParallelEmbedding) and not m.disable_tp]
    heads = {id(m.weight): m.weight for m in divided if isinstance(m, ParallelLMHead)}
    tables = {id(m.weight): m.weight for m in divided}
    tables = {key: weight for key, weight in tables.items() if key not in heads}

    def size(weights: Any) -> int:
        return sum(w.numel() * w.element_size() for w in weights)

    return {
        "tp": tp,
        "architecture": type(model).__name__,
        "draft_bytes": size({id(p): p for p in model.parameters()}.values()),
        "embedding_bytes": size(tables.values()),
        "head_bytes": size(heads.values()),
        "caches": sorted([*k, n] for k, n in caches.items()),
    }


def line(target: dict[str, Any], speculative: dict[str, Any], draft: dict[str, Any] | None, sizes: list[int]) -> str:
    """The line of a target and its draft for those tensor parallel sizes."""
    for config in (target, draft):
        if config is not None:
            register(config)
    with tempfile.TemporaryDirectory() as folder:
        places = {}
        for name, config in (("target", target), ("draft", draft)):
            places[name] = str(Path(folder) / name)
            if config is not None:
                Path(places[name]).mkdir()
                (Path(places[name]) / "config.json").write_text(json.dumps(config))
        given = {**speculative, **({"model": places["draft"]} if draft is not None else {})}
        launches = [drafted(places["target"], given, tp) for tp in sizes]
    values = {"target": target, "speculative": speculative, "draft": draft, "launches": launches}
    return json.dumps({"name": launches[0].pop("architecture"), **values}, separators=(",", ":"))


def main() -> None:
    """Builds the draft for every size and prints the line."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    files = [json.loads(Path(a).read_text()) for a in sys.argv[1:] if a.endswith(".json")]
    sizes = [int(a) for a in sys.argv[1:] if a.isdecimal()] or [1, 2]
    print(line(files[0], files[1], files[2] if len(files) > 2 else None, sizes))


if __name__ == "__main__":
    main()
