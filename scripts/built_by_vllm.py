"""Prints a line of fixtures/memory/built_by_vllm.json: what vLLM itself builds from a config.

Usage: PYTHON scripts/built_by_vllm.py CONFIG.json [TPxPP ...], with an interpreter that has vLLM for CPU. The model's
own class is built on torch's meta device, once for every pipeline stage, with the groups told that they have so many
ranks. Nothing is loaded or run.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

LAUNCHES = ("1x1", "2x1", "4x1", "1x2")


def groups() -> None:
    """One process, whose groups are of one rank each."""
    from vllm.distributed import parallel_state  # type: ignore[import-not-found]

    parallel_state.init_distributed_environment(
        world_size=1, rank=0, distributed_init_method=f"file://{tempfile.mktemp()}", local_rank=0, backend="gloo"
    )
    parallel_state.initialize_model_parallel()


def register(config: dict[str, Any]) -> None:
    """A type that only a repository's own code knows, read as plain values under the name of its class there."""
    from transformers import AutoConfig, PretrainedConfig  # type: ignore[import-not-found]
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # type: ignore[import-not-found]
    from vllm.transformers_utils.config import _CONFIG_REGISTRY  # type: ignore[import-not-found]

    def nested(values: dict[str, Any]) -> Any:
        known = values["model_type"] in CONFIG_MAPPING
        kind = CONFIG_MAPPING[values["model_type"]] if known else PretrainedConfig
        return kind(**{k: v for k, v in values.items() if k != "model_type" or kind is PretrainedConfig})

    def start(self: Any, **values: Any) -> None:
        parts = {k: nested(v) for k, v in values.items() if isinstance(v, dict) and "model_type" in v}
        vars(self).update(values)
        PretrainedConfig.__init__(self, **{**values, **parts})

    model_type, named = config["model_type"], config.get("auto_map", {}).get("AutoConfig")
    if model_type in _CONFIG_REGISTRY or (model_type in CONFIG_MAPPING and named is None):
        return
    known = model_type in CONFIG_MAPPING
    base = CONFIG_MAPPING[model_type] if known else PretrainedConfig
    more = {"model_type": model_type} if known else {"model_type": model_type, "__init__": start}
    own = type(named.split(".")[-1] if named else "PlainConfig", (base,), more)
    AutoConfig.register(model_type, own, exist_ok=True)


def cache_of(spec: Any) -> tuple[Any, ...]:
    """Kind, heads on this rank, head size, window, elements of the states."""
    # R-SWA keeps what a prompt has, and is weighed by vLLM as full attention.
    kind = type(spec).__name__.removesuffix("Spec").replace("RSWA", "FullAttention")
    if hasattr(spec, "shapes"):
        elements = 0
        for shape in spec.shapes:
            size = 1
            for side in shape:
                size *= side
            elements += size
        return (kind, 0, 0, 0, elements)
    window = getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None) or 0
    return (kind, spec.num_kv_heads, spec.head_size, window, 0)


def built(folder: str, tp: int, pp: int, stage: int) -> tuple[int, int, list[list[Any]], list[str]]:
    """Derived length, bytes of a stage's parameters on one rank, and the caches of its layers."""
    import torch
    from vllm.config import set_current_vllm_config  # type: ignore[import-not-found]
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs  # type: ignore[import-not-found]
    from vllm.model_executor.model_loader.utils import initialize_model  # type: ignore[import-not-found]

    config = EngineArgs(
        model=folder, skip_tokenizer_init=True, enforce_eager=True, load_format="dummy"
    ).create_engine_config()
    config.parallel_config.tensor_parallel_size = tp
    config.parallel_config.pipeline_parallel_size = pp
    with set_current_vllm_config(config):
        if parallel_state._WORLD is None:
            groups()
        for group, ranks, rank in ((parallel_state._TP, tp, 0), (parallel_state._PP, pp, stage)):
            group.world_size, group.rank_in_group = ranks, rank
            group.ranks = list(range(ranks))
            group.rank = rank
        torch.set_default_dtype(config.model_config.dtype)
        with torch.device("meta"):
            model = initialize_model(vllm_config=config)
        torch.set_default_dtype(torch.float32)
        caches: dict[tuple[Any, ...], int] = {}
        for layer in config.compilation_config.static_forward_context.values():
            own = hasattr(layer, "get_kv_cache_spec") and not getattr(layer, "kv_sharing_target_layer_name", None)
            spec = layer.get_kv_cache_spec(config) if own else None
            if spec is not None:
                key = cache_of(spec)
                caches[key] = caches.get(key, 0) + 1
    # What vLLM keeps in the memory of the host is no part of it.
    seen = {id(p): p for p in model.parameters() if p.is_meta}
    names = [f"{n} {tuple(p.shape)} {p.dtype}" for n, p in model.named_parameters()]
    size = sum(p.numel() * p.element_size() for p in seen.values())
    return config.model_config.max_model_len, size, sorted([*k, n] for k, n in caches.items()), names


def main() -> None:
    """Builds the config's model for every launch and prints the line."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    config = json.loads(Path(sys.argv[1]).read_text())
    register(config)
    launches = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        for launch in sys.argv[2:] or LAUNCHES:
            tp, pp = (int(n) for n in launch.split("x"))
            stages = [built(folder, tp, pp, stage) for stage in range(pp)]
            if os.environ.get("SHOW_NAMES"):
                print("\n".join(stages[0][3]), file=sys.stderr)
            launches.append(
                {
                    "tp": tp,
                    "pp": pp,
                    "max_model_len": stages[0][0],
                    "stage_bytes": [s[1] for s in stages],
                    "caches": stages[0][2],
                }
            )
    print(
        json.dumps({"name": config["architectures"][0], "config": config, "launches": launches}, separators=(",", ":"))
    )


if __name__ == "__main__":
    main()
