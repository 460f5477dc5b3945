"""What vLLM's log says of memory, in the wordings of its releases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor.trial.reported import Reported, read

GIB = 2**30


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [
                "INFO 12-01 10:00:00 worker.py:232] the current vLLM instance can use total_gpu_memory (79.11GiB) x",
                "model weights take 14.99GiB; non_torch_memory takes 0.12GiB; PyTorch activation peak memory takes "
                "1.19GiB; the rest of the memory reserved for KV Cache is 54.89GiB.",
                "INFO 12-01 10:00:01 executor_base.py:110] # CUDA blocks: 28103, # CPU blocks: 2048",
                "INFO 12-01 10:00:01 executor_base.py:115] Maximum concurrency for 131072 tokens per request: 3.43x",
                "INFO 12-01 10:00:25 model_runner.py:1535] Graph capturing finished in 21 secs, took 0.31 GiB",
            ],
            Reported(
                weights_bytes=round(14.99 * GIB),
                non_torch_bytes=round(0.12 * GIB),
                activation_bytes=round(1.19 * GIB),
                kv_cache_bytes=round(54.89 * GIB),
                max_concurrency=3.43,
                concurrent_tokens=131072,
                graphs_bytes=round(0.31 * GIB),
                blocks=28103,
            ),
            id="0.7, engine V0",
        ),
        pytest.param(
            [
                "INFO [gpu_model_runner.py:1549] Model loading took 14.9889 GiB and 3.456789 seconds",
                "INFO [kv_cache_utils.py:634] GPU KV cache size: 447,344 tokens",
                "INFO [kv_cache_utils.py:637] Maximum concurrency for 131,072 tokens per request: 3.41x",
                "INFO [gpu_model_runner.py:1933] Graph capturing finished in 20 secs, took 0.53 GiB",
            ],
            Reported(
                weights_bytes=round(14.9889 * GIB),
                tokens=447344,
                max_concurrency=3.41,
                concurrent_tokens=131072,
                graphs_bytes=round(0.53 * GIB),
            ),
            id="0.8 to 0.10, engine V1",
        ),
        pytest.param(
            [
                "Actual usage is 14.99 GiB for weight, 1.44 GiB for peak activation, 0.27 GiB for non-torch memory, "
                "and 0.23 GiB for CUDAGraph memory.",
                "(EngineCore pid=1) INFO [gpu_worker.py:1] Available KV cache memory: 56.21 GiB",
            ],
            Reported(
                weights_bytes=round(14.99 * GIB),
                activation_bytes=round(1.44 * GIB),
                non_torch_bytes=round(0.27 * GIB),
                graphs_bytes=round(0.23 * GIB),
                kv_cache_bytes=round(56.21 * GIB),
            ),
            id="0.10.2 to 0.26",
        ),
        pytest.param(
            [
                "Actual usage is 15.26 GiB for consumed memory (weights + non-torch), 1.44 GiB for peak activation, "
                "and 0.23 GiB for CUDAGraph memory.",
                "INFO [kv_cache_utils.py:2328] GPU KV cache size: 460,496 tokens, Maximum concurrency for 131,072 "
                "tokens per request: 3.51x",
            ],
            Reported(
                consumed_bytes=round(15.26 * GIB),
                activation_bytes=round(1.44 * GIB),
                graphs_bytes=round(0.23 * GIB),
                tokens=460496,
                max_concurrency=3.51,
                concurrent_tokens=131072,
            ),
            id="0.28 and later",
        ),
        pytest.param(
            [
                "(Worker_TP0 pid=1) Model loading took 35.10 GiB memory and 9.000001 seconds",
                "(Worker_TP1 pid=2) Model loading took 34.90 GiB memory and 9.000001 seconds",
                "(Worker_TP0 pid=1) Available KV cache memory: 30.5 GiB",
                "(Worker_TP1 pid=2) Available KV cache memory: 31.0 GiB",
            ],
            Reported(weights_bytes=round(35.1 * GIB), kv_cache_bytes=round(30.5 * GIB)),
            id="of several ranks, the fullest",
        ),
        pytest.param(["INFO nothing of the kind", "took a while", "GiB"], Reported(), id="nothing"),
    ],
)
def test_the_wordings_of_the_releases(lines: list[str], expected: Reported) -> None:
    assert read(lines) == expected


@given(st.lists(st.text(alphabet="0123456789,. GiBtokNX:#blcsKVemr\n"), max_size=20))
def test_no_line_is_too_odd(lines: list[str]) -> None:
    assert isinstance(read(lines), Reported)
