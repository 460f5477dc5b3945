#!/usr/bin/env python3
"""What a plan costs: one through the command line on a local config, and 10,000 through the Python API.

    python -m benchmarks.speed_plan [--runs N]

The 10,000 go over models, boards, parallel sizes, lengths and shares of the card, so that caches do not carry them.
CPU seconds are user plus system of the whole process. Prints one line of figures, last.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vllm_doctor.memory import boards, catalogue  # noqa: E402
from vllm_doctor.memory.architecture import read_architecture  # noqa: E402
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings  # noqa: E402
from vllm_doctor.memory.plan import plan  # noqa: E402

MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct-AWQ", "google/gemma-3-27b-it", "openai/gpt-oss-120b",
    "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-Next-80B-A3B-Instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1",
)  # fmt: skip
BOARDS = ("L4:8", "A100-40GB:8", "H100:8", "B200:8")
PLANS = 10_000
LIMIT_CPU_SECONDS = 0.3
LIMIT_MILLISECONDS = 1.0


def cases() -> Iterator[tuple[Architecture, LaunchSettings, Device]]:
    """Launches, all different."""
    models = [read_architecture(e.config_json) for name in MODELS if (e := catalogue.find(name)) is not None]
    devices = [boards.device(name) for name in BOARDS]
    number = itertools.count()
    while True:
        for model, device, size in itertools.product(models, devices, (1, 2, 4, 8)):
            n = next(number)
            settings = LaunchSettings(
                tensor_parallel_size=size,
                max_model_len=1024 + n,
                gpu_memory_utilization=0.5 + n % 45 / 100,
                max_num_seqs=(64, 256, 1024)[n % 3],
                kv_cache_dtype=("auto", "fp8")[n // 7 % 2],
            )
            yield model, settings, device


def milliseconds() -> float:
    """Of one plan through the Python API."""
    wanted = list(itertools.islice(cases(), PLANS))
    started = time.process_time()
    for model, settings, device in wanted:
        plan(model, settings, device)
    return (time.process_time() - started) / PLANS * 1000


def cpu_seconds(folder: Path) -> float:
    """Of `vllm-doctor plan FOLDER --gpu L4`, the whole process."""
    argv = [sys.executable, "-m", "vllm_doctor", "plan", str(folder), "--gpu", "L4", "--format", "json"]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{argv}: exit {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure both, print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    entry = catalogue.find("Qwen/Qwen2.5-7B-Instruct")
    assert entry is not None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(entry.config_json)
        whole = median(cpu_seconds(Path(folder)) for _ in range(runs))
    each = milliseconds()
    sys.stdout.write(f"speed_plan: {whole:.3f} CPU s a local config, {each:.3f} ms a plan over {PLANS} plans\n")
    return 0 if whole <= LIMIT_CPU_SECONDS and each < LIMIT_MILLISECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
