"""How exactly the memory plan equals vLLM's own numbers: KV bytes per token, blocks, tokens, concurrency, parameters.

Usage: kv_oracle.py ORACLE.json [--list]. The oracle holds what vLLM itself computed, per model and launch. Prints
one line, last; with --list every entry that differs before it. Exit code 1 where anything differs.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release, release_numbers
from vllm_doctor.memory.implementation import served
from vllm_doctor.memory.kv_cache import KvLayout, kv_layout
from vllm_doctor.memory.kv_cache.specs import model_element_bytes
from vllm_doctor.memory.weights import parameters_of, quantization_of, stage_bytes

PARAMETERS_TOLERANCE = 0.001


def settings_of(launch: Mapping[str, Any]) -> LaunchSettings:
    """The launch's settings; whether the hybrid manager is on is vLLM's choice, not ours, only where it is off."""
    return LaunchSettings(
        tensor_parallel_size=launch["tp"],
        pipeline_parallel_size=launch["pp"],
        expert_parallel=launch["expert_parallel"],
        kv_cache_dtype=launch["kv_cache_dtype"],
        dtype="auto",
    )


def device_of(oracle: Mapping[str, Any], name: str) -> Device:
    """The GPU that vLLM was made to see."""
    gpu = oracle["gpus"][name]
    return Device(name=gpu["name"], total_bytes=gpu["total"], capability=gpu["cap"][0] * 10 + gpu["cap"][1])


def layout_of(
    architecture: Architecture, launch: Mapping[str, Any], device: Device, release: Release, max_model_len: int
) -> KvLayout:
    """The layout at that length (the states of a Mamba model depend on it)."""
    return kv_layout(
        architecture, settings_of(launch), release, device, launch["max_num_batched_tokens"], max_model_len
    )


def case_problems(
    architecture: Architecture, launch: Mapping[str, Any], device: Device, release: Release
) -> Iterator[str]:
    """What differs in the cases of one launch."""
    native = architecture.native_max_model_len or 2048
    if native != launch["native_max_model_len"]:
        yield f"native length {native}, vLLM {launch['native_max_model_len']}"
    per_token = launch["kv_bytes_per_token_rank0"]
    for case in launch["cases"]:
        available, asked = case["available_bytes"], case["asked_max_model_len"]
        layout = layout_of(architecture, launch, device, release, asked or native)
        if layout.bytes_per_token_per_gpu != per_token:
            yield f"bytes per token {layout.bytes_per_token_per_gpu}, vLLM {per_token}"
            return
        length = asked if asked is not None else layout.largest_max_model_len(available, native)
        yield from _capacity_problems(case, layout, available, length, asked)


def _capacity_problems(
    case: Mapping[str, Any], layout: KvLayout, available: int, length: int, asked: int | None
) -> Iterator[str]:
    error = layout.error(available, length) if asked is not None or length > 0 else "auto"
    if "error" in case:
        if error is None or (error != "auto" and error != case["error"]):
            yield f"{available} at {asked}: {error!r}, vLLM {case['error']!r}"
        return
    if error is not None:
        yield f"{available} at {asked}: {error!r}, vLLM starts"
        return
    capacity = layout.capacity(available, length)
    ours = (capacity.blocks, capacity.tokens, capacity.max_concurrency, length)
    theirs = (case["num_blocks"], case["kv_cache_size_tokens"], case["max_concurrency"], case["max_model_len"])
    if ours != theirs:
        yield f"{available} at {asked}: blocks, tokens, concurrency, length {ours}, vLLM {theirs}"


def byte_problems(architecture: Architecture, launch: Mapping[str, Any], release: Release) -> Iterator[str]:
    """Ranks whose weights are off by more than the tolerance."""
    settings, architecture = settings_of(launch), served(architecture, release)
    packing, _ = quantization_of(architecture, settings)
    ours = stage_bytes(architecture, settings, packing, model_element_bytes(architecture, settings))
    for stage, (mine, rank) in enumerate(zip(ours, launch["rank_weights"], strict=True)):
        if abs(mine - rank["parameter_bytes"]) > rank["parameter_bytes"] * PARAMETERS_TOLERANCE:
            yield f"stage {stage}: {mine} bytes of weights, vLLM {rank['parameter_bytes']}"


def main() -> int:
    """Compares every entry and prints the line."""
    oracle = json.loads(Path(sys.argv[1]).read_text())
    release = release_numbers(oracle["vllm"]) or (0, 32, 0)
    launches = equal = cases = models = parameters = ranks = 0
    worst = 0.0
    differing: list[str] = []
    started = time.process_time()
    for model in oracle["models"]:
        models += 1
        try:
            architecture = read_architecture(json.dumps(model["config"]))
        except DoctorError as error:
            differing.append(f"{model['name']}: {error}")
            launches += len(model["launches"])
            continue
        off = abs(parameters_of(architecture) - model["hf_params"]) / model["hf_params"]
        worst = max(worst, off)
        parameters += off <= PARAMETERS_TOLERANCE
        if off > PARAMETERS_TOLERANCE:
            differing.append(f"{model['name']}: {parameters_of(architecture)} parameters, vLLM {model['hf_params']}")
        for launch in model["launches"]:
            launches += 1
            cases += len(launch["cases"])
            name = f"{model['name']} {launch['gpu']} tp{launch['tp']} pp{launch['pp']} {launch['kv_cache_dtype']}"
            device = device_of(oracle, launch["gpu"])
            problems = list(case_problems(architecture, launch, device, release))
            equal += not problems
            bytes_off = list(byte_problems(architecture, launch, release))
            ranks += not bytes_off
            differing += [f"{name}: {p}" for p in (*problems[:2], *bytes_off)]
    if "--list" in sys.argv:
        print("\n".join(differing))
    seconds = time.process_time() - started
    print(
        f"kv_oracle: launches equal {equal}/{launches} ({cases} cases), parameters within 0.1% {parameters}/{models} "
        f"(worst {worst:.4%}), weights per rank within 0.1% {ranks}/{launches}, {seconds:.1f} s"
    )
    return 0 if equal == launches and models - parameters <= models / 50 else 1


if __name__ == "__main__":
    raise SystemExit(main())
