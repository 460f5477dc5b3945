"""A `vllm` that reads a few flags as vLLM does, tells its stages, and serves what a scripted server answers."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.client.scripted import Asked, Scripted, as_json, refused, response, usual

STAGES = """(APIServer pid=1) INFO 11-22 20:46:41 [api_server.py:1] vLLM API server version 0.32.0
(EngineCore pid=2) INFO 11-22 20:46:41 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x
(Worker pid=3) INFO 11-22 20:46:45 [cpu_model_runner.py:68] Starting to load model x...
(Worker pid=3) INFO 11-22 20:46:46 [gpu_model_runner.py:1] Model loading took 1.5 GiB memory and 0.1 seconds
(EngineCore pid=2) INFO 11-22 20:46:50 [gpu_worker.py:1] Available KV cache memory: 2.00 GiB
(EngineCore pid=2) INFO 11-22 20:46:50 [kv_cache_utils.py:1] GPU KV cache size: 32,768 tokens"""

TOO_LONG = (
    "(EngineCore pid=2) ERROR 11-22 20:46:50 [core.py:1] ValueError: To serve at least one request with the model's "
    "max seq len (9000), (4.00 GiB KV cache is needed, which is larger than the available KV cache memory (2.00 GiB). "
    "Based on the available memory, the estimated maximum model length is 4096.\n"
    "RuntimeError: Engine core initialization failed. See root cause above."
)
NO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


def main(words: list[str]) -> None:
    """Serve for ten minutes, or fail as the flags make it."""
    flags = dict(zip(words, [*words[1:], ""], strict=True))
    print(STAGES, flush=True)  # noqa: T201 - the log
    if flags.get("--max-model-len") == "9000":
        sys.exit(TOO_LONG)
    if "--silent" in flags:
        sys.exit(3)
    if "--hang" in flags:
        time.sleep(600)

    def answer(asked: Asked) -> bytes:
        if "--dies" in flags and asked.path == "/v1/chat/completions":
            print('127.0.0.1:54298 - "GET /health HTTP/1.1" 503 Service Unavailable\n - leaked type "x"', flush=True)  # noqa: T201
            os._exit(0)
        if "--api-key" in flags and asked.headers.get("authorization") != f"Bearer {flags['--api-key']}":
            return as_json({"error": "Unauthorized"}, 401)
        tools = asked.path == "/v1/chat/completions" and asked.json().get("tools")
        return refused(NO_TOOLS) if tools and "--tool-call-parser" not in flags else usual(asked)

    with Scripted({"*": answer, "/health": lambda _: response(200)}, port=int(flags["--port"])):
        time.sleep(600)


main(sys.argv[2:])
