"""Prints a line of fixtures/memory/groups_by_vllm.json: how vLLM lays the KV cache of a config out.

Usage: PYTHON scripts/groups_by_vllm.py CONFIG.json 'KEY=VALUE ...' [...], with an interpreter that has vLLM for CPU, as
if on an H100 through scripts/as_if_cuda.py. Every second argument and those after it are a launch: `tp`, `pp`, `gib`
for the cache on each GPU, `max_model_len`, `max_num_batched_tokens`, `method` and `tokens` of speculative decoding.
The layers are built on torch's meta device, as scripts/built_by_vllm.py does; the rest is vLLM's own arithmetic.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from built_by_vllm import groups, register

GIB = 2**30


def layers_of(config: Any, launch: dict[str, Any], stage: int) -> tuple[dict[str, Any], list[str]]:
    """The specs of a stage's caches by layer, and the layouts that its backends take."""
    import torch
    from vllm.distributed import parallel_state  # type: ignore[import-not-found]
    from vllm.model_executor.model_loader.utils import initialize_model  # type: ignore[import-not-found]
    from vllm.platforms import current_platform  # type: ignore[import-not-found]
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts  # type: ignore[import-not-found]
    from vllm.v1.worker.worker_base import get_current_attn_backends  # type: ignore[import-not-found]

    for group, ranks, rank in (
        (parallel_state._TP, launch["tp"], 0),
        (parallel_state._PP, launch["pp"], stage),
    ):
        group.world_size, group.rank_in_group, group.rank = ranks, rank, rank
        group.ranks = list(range(ranks))
    config.compilation_config.static_forward_context.clear()
    torch.set_default_dtype(config.model_config.dtype)
    with torch.device("meta"):
        initialize_model(vllm_config=config)
        if config.speculative_config is not None and stage == launch["pp"] - 1:
            initialize_model(vllm_config=config, model_config=config.speculative_config.draft_model_config)
    torch.set_default_dtype(torch.float32)
    current_platform.update_block_size_for_backend(config)
    layers = config.compilation_config.static_forward_context.items()
    specs = {name: layer.get_kv_cache_spec(config) for name, layer in layers if hasattr(layer, "get_kv_cache_spec")}
    layouts = [found.name for found in get_supported_kv_cache_layouts(get_current_attn_backends(config))]
    return {name: spec for name, spec in specs.items() if spec is not None}, layouts


def laid_out(folder: str, launch: dict[str, Any]) -> dict[str, Any]:
    """The blocks, tokens and concurrency of a launch, as vLLM logs them."""
    from vllm.config import set_current_vllm_config  # type: ignore[import-not-found]
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs  # type: ignore[import-not-found]
    from vllm.platforms import current_platform
    from vllm.v1.core.kv_cache_utils import (  # type: ignore[import-not-found]
        generate_scheduler_kv_cache_config,
        get_kv_cache_capacity,
        get_kv_cache_configs,
    )

    draft = {"method": launch["method"], "num_speculative_tokens": launch["tokens"]} if "method" in launch else None
    given = {k: launch[k] for k in ("max_model_len", "max_num_batched_tokens", "block_size") if k in launch}
    config = EngineArgs(
        model=folder,
        skip_tokenizer_init=True,
        enforce_eager=True,
        load_format="dummy",
        speculative_config=draft,
        **given,
    ).create_engine_config()
    with set_current_vllm_config(config):
        if parallel_state._WORLD is None:
            groups()
        config.parallel_config.tensor_parallel_size = launch["tp"]
        config.parallel_config.pipeline_parallel_size = launch["pp"]
        stages = [layers_of(config, launch, stage) for stage in range(launch["pp"])]
        config.cache_config.kv_cache_layout = stages[0][1][0]
        memory = [int(launch["gib"] * GIB)] * launch["pp"]
        configs = get_kv_cache_configs(config, [specs for specs, _ in stages], memory)
        found = generate_scheduler_kv_cache_config(configs)
        tokens, concurrency = get_kv_cache_capacity(config, found)
    return {
        **launch,
        "capability": current_platform.get_device_capability().major,
        "in_flight": config.max_in_flight_tokens,
        "block": config.cache_config.block_size,
        "layout": config.cache_config.kv_cache_layout,
        "groups": sorted(len(group.layer_names) for group in found.kv_cache_groups),
        "blocks": found.num_blocks,
        "capacity": tokens,
        "concurrency": concurrency,
    }


def read_launch(text: str) -> dict[str, Any]:
    """A launch out of KEY=VALUE words."""
    pairs = (word.partition("=") for word in text.split())
    return {"tp": 1, "pp": 1, **{key: value if key == "method" else json.loads(value) for key, _, value in pairs}}


def main() -> None:
    """Lays the cache out for every launch and prints the line."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    config = json.loads(Path(sys.argv[1]).read_text())
    register(config)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        launches = [laid_out(folder, read_launch(text)) for text in sys.argv[2:]]
    values = {"name": config["architectures"][0], "config": config, "launches": launches}
    print(json.dumps(values, separators=(",", ":")))


if __name__ == "__main__":
    main()
