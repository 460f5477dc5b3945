"""How often the memory plan's verdict agrees with what became of real users' launches.

    python -m benchmarks.reported CORPUS.json [-v]

A record names the model, the GPU, the flags and the outcome (`ok`, `oom-kv`, `gpu-busy`, ...). Records whose model's
config or card is not known, and those that the corpus itself marks as saying nothing of an outcome, cannot be planned
and are counted apart. `agrees`: the launch starts, or does
not, as planned; `cause`: for those that did not, the plan names the recorded cause as well. A failed launch is
`called fits` where the plan is certain that it starts. Prints one line of figures, last.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory import boards, catalogue
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.budget import budget
from vllm_doctor.memory.defaults import resolve
from vllm_doctor.memory.estimate import exactly
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release, release_numbers
from vllm_doctor.memory.plan import Certainty, Plan, plan

Record = dict[str, Any]
GIB = 2**30

# Where a record names no release: one in the middle of that engine's time.
RELEASES: dict[str, Release] = {"v0": (0, 6, 3), "v1": (0, 11, 0)}

# After the start, the plan has nothing to say.
STARTED = ("ok", "oom-serving")

# Names of users for models that the catalogue has under another.
SAME = {"llama-2-7b": "meta-llama/Llama-2-7b-hf", "llama-2-70b": "meta-llama/Llama-2-70b-hf"}

# Repacked copies by others than the publisher: the model, and how its weights are packed there.
_INT4 = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}
_NVFP4 = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "ignore": ["lm_head", "visual"]}
_GROUPS = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}}},
    "ignore": ["lm_head"],
}
REPACKED: dict[str, tuple[str, Record]] = {
    "qwen3.8-27b-autoround-int4": ("Qwen/Qwen3.8-27B", _INT4),
    "qwen3.6-27b-autoround-int4": ("Qwen/Qwen3.6-27B", _INT4),
    "qwen3.6-27b (long-text compose)": ("Qwen/Qwen3.6-27B", _INT4),
    "qwen3.6-35b-a3b-nvfp4": ("Qwen/Qwen3.6-35B-A3B", _NVFP4),
    "cyankiwi/kimi-linear-48b-a3b-instruct-awq-4bit": ("moonshotai/Kimi-Linear-48B-A3B-Instruct", _GROUPS),
}


def architecture_of(record: Record) -> Architecture | None:
    """The model by its name; else one of its published shape where the record has that; else None."""
    name = record["model"] or ""
    if (repacked := REPACKED.get(name.lower())) is not None:
        base = catalogue.find(repacked[0])
        assert base is not None
        config = json.loads(base.config_json)
        return read_architecture(json.dumps({**config, "quantization_config": repacked[1]}))
    entry = catalogue.find(SAME.get(name.lower(), name)) or _of_folder(name)
    if entry is not None:
        return read_architecture(entry.config_json)
    facts = record.get("model_facts") or {}
    needed = ("hidden_size", "num_layers", "num_kv_heads", "head_dim", "params_b")
    if not all(facts.get(key) for key in needed) or facts.get("note") or record["quantization"]:
        return None
    return read_architecture(json.dumps(_shaped(facts, record)))


def _of_folder(name: str) -> catalogue.Entry | None:
    """The listed model that a local folder (`/models/Qwen2.5-7B-Instruct`) or a bare name is called after."""
    last = name.rstrip("/").rpartition("/")[2].lower()
    if not last or (name.count("/") == 1 and not name.startswith((".", "/"))):
        return None
    found = next((known for known in catalogue.names() if known.lower().rpartition("/")[2] == last), None)
    return None if found is None else catalogue.find(found)


def _shaped(facts: Record, record: Record) -> Record:
    """A Llama of that shape whose MLP is as wide as the parameter count says."""
    hidden, layers = facts["hidden_size"], facts["num_layers"]
    vocabulary = 32000
    attention = 2 * hidden * hidden + 2 * hidden * facts["num_kv_heads"] * facts["head_dim"]
    rest = facts["params_b"] * 1e9 - 2 * vocabulary * hidden - layers * attention
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // facts["head_dim"],
        "num_key_value_heads": facts["num_kv_heads"],
        "head_dim": facts["head_dim"],
        "intermediate_size": max(64, round(rest / layers / 3 / hidden / 64) * 64),
        "vocab_size": vocabulary,
        "max_position_embeddings": record["effective_max_model_len"] or 4096,
        "tie_word_embeddings": False,
    }


def settings_of(record: Record) -> LaunchSettings:
    """The flags that the record states; vLLM's defaults elsewhere."""
    flags = record["flags"]
    known = ("gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "block_size")
    values: Record = {key: flags[key] for key in known if flags.get(key) is not None}
    dtype = (flags.get("dtype") or "auto").split(" ")[0]
    return LaunchSettings(
        **values,
        tensor_parallel_size=record["tensor_parallel"] or 1,
        pipeline_parallel_size=record["pipeline_parallel"] or 1,
        max_model_len=flags.get("max_model_len") or record["effective_max_model_len"],
        enforce_eager=bool(flags.get("enforce_eager")),
        kv_cache_dtype=(flags.get("kv_cache_dtype") or "auto").replace("fp8_e4m3", "fp8"),
        dtype=dtype,
        quantization="fp8" if record["quantization"] == "fp8" else None,
    )


def device_of(record: Record) -> Device | None:
    """The card, with the total that was logged, or that of the board of the name."""
    total, count = record["gpu_total_gib"], record["num_gpus"] or 1
    if total is None:
        return None
    name = (record["gpu_name"] or "GPU").split("(")[0].strip()
    nominal = record["gpu_total_source"] == "nominal"
    try:
        board = boards.device(f"{name.removesuffix('-80GB')} {round(total)}GB:{count}")
    except DoctorError:
        try:
            board = boards.device(f"{name}:{count}")
        except DoctorError:
            board = Device(name=name, total_bytes=int((total * 0.9975 - 0.3) * GIB), count=count)
    size = board.total_bytes if nominal else int(total * GIB)
    return Device(name=board.name, total_bytes=size, capability=board.capability, count=count)


def judged(record: Record) -> tuple[str, Plan | None]:
    """`agrees`, `disagrees`, `called fits` or `not planned`, with the plan."""
    observed = record["observed"]
    if not {"outcome", "busy_check"} & set(record["usable_for"]):
        return "not planned", None
    release = release_numbers(record["vllm_version"] or "") or RELEASES[record["engine"]]
    device = device_of(record)
    if record["outcome"] == "gpu-busy" and observed.get("free_gib") and device is not None:
        return _busy(record, device, release), None
    architecture = architecture_of(record)
    if architecture is None or device is None:
        return "not planned", None
    found = plan(architecture, settings_of(record), device, release)
    starts = found.verdict.value == "fits"
    if starts == (record["outcome"] in STARTED):
        return "agrees", found
    return ("called fits" if found.fits else "disagrees"), found


def _busy(record: Record, device: Device, release: Release) -> str:
    """The test of free memory needs no model: with what was free when vLLM looked."""
    any_model = Architecture(
        name="", model_type="", dtype="", hidden_size=1, vocabulary_size=1, layers=(), kinds=(), first=(), last=()
    )
    settings = settings_of(record)
    taken = resolve(any_model, settings, device, release)
    free = exactly(int(record["observed"]["free_gib"] * GIB))
    refused = budget(settings, taken, device, release).refusal(free.typical)
    return "agrees" if refused else "called fits"


def main() -> int:
    """Plan every record, print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    for record in json.loads(arguments.corpus.read_text())["records"]:
        try:
            outcome, found = judged(record)
        except DoctorError as problem:
            outcome, found = "not planned", None
            sys.stderr.write(f"{record['id']}: {problem}\n")
        counts[outcome] += 1
        if found is not None:
            counts["cause"] += outcome == "agrees" and found.verdict.value == record["outcome"]
            counts["failed"] += outcome == "agrees" and record["outcome"] not in STARTED
            counts["close"] += found.certainty is Certainty.CLOSE
        if arguments.verbose:
            _show(record, outcome, found)
    planned = counts["agrees"] + counts["disagrees"] + counts["called fits"]
    sys.stdout.write(
        f"reported: {planned} of {planned + counts['not planned']} planned, {counts['agrees']} agree "
        f"({counts['agrees'] / max(1, planned):.1%}), {counts['called fits']} failed and called fits, "
        f"{counts['close']} too close to call, cause right {counts['cause']} of {counts['failed']}\n"
    )
    return 0 if counts["agrees"] >= 0.9 * planned and not counts["called fits"] else 1


def _show(record: Record, outcome: str, found: Plan | None) -> None:
    said = (
        "" if found is None else f"{found.verdict.value} {found.certainty.value} margin {found.margin_bytes / GIB:.2f}"
    )
    left = (
        "" if found is None else f"kv {found.kv_cache.typical / GIB:.2f}/{record['observed'].get('available_kv_gib')}"
    )
    weights = (
        "" if found is None else f"w {found.weights.per_gpu_bytes / GIB:.2f}/{record['observed'].get('weights_gib')}"
    )
    sys.stdout.write(f"{record['id']:24} {outcome:12} was {record['outcome']:14} {said} {left} {weights}\n")


if __name__ == "__main__":
    sys.exit(main())
