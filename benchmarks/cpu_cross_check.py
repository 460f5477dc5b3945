"""What a real vLLM for CPU logs at its start, against the plan: KV cache tokens and maximum concurrency.

Usage: cpu_cross_check.py PYTHON MODELS_FOLDER [MODEL...]. PYTHON is the interpreter of an environment with vLLM for
CPU. Every model is started with a fixed cache, its log read to the line of the cache, and ended. Prints one line, last.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Device, LaunchSettings, release_numbers
from vllm_doctor.memory.kv_cache import kv_layout

CACHE_BYTES = 2**28
MAX_MODEL_LEN = 500
BATCHED_TOKENS = 256
START_SECONDS = 300
LINE = re.compile(r"KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
MODELS = ("tiny-llama", "tiny-gemma2", "tiny-mla")


def logged(python: str, model: Path) -> tuple[int, float] | None:
    """Tokens and concurrency that vLLM logs; None where it does not come so far."""
    words = (
        f"{python} -m vllm.entrypoints.cli.main serve {model} --port 0 --enforce-eager --max-model-len {MAX_MODEL_LEN} "
        f"--max-num-batched-tokens {BATCHED_TOKENS} --max-num-seqs 4 --kv-cache-memory-bytes {CACHE_BYTES}"
    ).split()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as server:
        watchdog = threading.Timer(START_SECONDS, _end, (server.pid,))
        watchdog.start()
        try:
            return _read(server)
        finally:
            watchdog.cancel()
            _end(server.pid)


def _end(group: int) -> None:
    """Ends the server with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _read(server: "subprocess.Popen[str]") -> tuple[int, float] | None:
    for line in server.stdout or ():
        if (found := LINE.search(line)) is not None:
            return int(found[1].replace(",", "")), float(found[3])
    return None


def planned(model: Path, version: str) -> tuple[int, float]:
    """Tokens and concurrency of the plan, as vLLM rounds them."""
    architecture = read_architecture((model / "config.json").read_text())
    release = release_numbers(version) or (0, 32, 0)
    device = Device(name="cpu", total_bytes=2**34)
    layout = kv_layout(architecture, LaunchSettings(), release, device, BATCHED_TOKENS, MAX_MODEL_LEN)
    capacity = layout.capacity(CACHE_BYTES, MAX_MODEL_LEN)
    return capacity.tokens, float(f"{capacity.max_concurrency:.2f}")


def main() -> int:
    """Compares every model and prints the line."""
    python, folder = sys.argv[1], Path(sys.argv[2])
    command = [python, "-c", "from importlib.metadata import version; print(version('vllm'))"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    names = tuple(sys.argv[3:]) or MODELS
    equal = 0
    for name in names:
        theirs, ours = logged(python, folder / name), planned(folder / name, version)
        equal += theirs == ours
        print(f"{name}: vLLM {theirs}, plan {ours}")
    print(f"cpu_cross_check: vLLM {version}: tokens and concurrency equal {equal}/{len(names)}")
    return 0 if equal == len(names) else 1


if __name__ == "__main__":
    raise SystemExit(main())
