"""Verdicts, vLLM's words, and their certainty."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.memory.building import GIB, model, planned
from vllm_doctor.memory import boards
from vllm_doctor.memory.budget import holders
from vllm_doctor.memory.document import document
from vllm_doctor.memory.facts import LaunchSettings
from vllm_doctor.memory.plan import Certainty, Plan, Verdict, plan

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
LARGE = "meta-llama/Llama-3.3-70B-Instruct"


@pytest.mark.parametrize(
    ("name", "board", "flags", "verdict"),
    [
        (LLAMA, "H100", {}, Verdict.FITS),
        (LLAMA, "L4", {}, Verdict.OOM_KV),
        (LLAMA, "L4", {"max_model_len": 8192}, Verdict.FITS),
        (LLAMA, "L4", {"max_model_len": -1}, Verdict.FITS),
        (LARGE, "H100", {}, Verdict.OOM_WEIGHTS),
        (LARGE, "H100:2", {"tensor_parallel_size": 4}, Verdict.GPU_COUNT),
        (LARGE, "H100:4", {"tensor_parallel_size": 4}, Verdict.FITS),
        ("Qwen/Qwen2.5-7B-Instruct", "H100:8", {"tensor_parallel_size": 8}, Verdict.TP_DIVISIBILITY),
        ("microsoft/phi-4", "H100:4", {"tensor_parallel_size": 4}, Verdict.TP_DIVISIBILITY),
        (LLAMA, "H100", {"gpu_memory_utilization": 0.999}, Verdict.GPU_BUSY),
        (LLAMA, "H100", {"max_model_len": 131073}, Verdict.MAX_LEN_OVER_MODEL),
        (LLAMA, "H200", {"max_model_len": 131073, "any_max_model_len": True}, Verdict.FITS),
        ("microsoft/Phi-3.5-mini-instruct", "H100", {"max_model_len": 131072}, Verdict.FITS),
        ("microsoft/Phi-3.5-mini-instruct", "H100", {"max_model_len": 131073}, Verdict.MAX_LEN_OVER_MODEL),
        (LLAMA, "H100", {"max_num_seqs": 16384, "max_num_batched_tokens": 1 << 20}, Verdict.OOM_ACTIVATION),
    ],
)
def test_verdicts(name, board, flags, verdict) -> None:  # type: ignore[no-untyped-def]
    assert planned(name, board, LaunchSettings(**flags)).verdict is verdict


def test_what_vllm_would_say() -> None:
    kv = planned(LLAMA, "L4", release=(0, 19, 0)).error or ""
    assert kv.startswith("To serve at least one request with the models's max seq len (131072), (16.0 GiB KV cache is")
    weights = planned(LARGE, "H100").error or ""
    assert weights.startswith("Failed to load model - not enough GPU memory.")
    heads = planned("Qwen/Qwen2.5-7B-Instruct", "H100:8", LaunchSettings(tensor_parallel_size=8)).error
    assert heads == "Total number of attention heads (28) must be divisible by tensor parallel size (8)."
    busy = planned(LLAMA, "H100", LaunchSettings(gpu_memory_utilization=0.999)).error or ""
    assert "on startup is less than desired GPU memory utilization (0.999, 79.11 GiB)" in busy
    assert planned(LLAMA, "H100").error is None


def test_memory_that_others_hold_counts() -> None:
    busy = replace(boards.device("H100"), free_bytes=20 * GIB)
    assert plan(model(LLAMA), LaunchSettings(), busy).verdict is Verdict.GPU_BUSY
    small = LaunchSettings(gpu_memory_utilization=0.23, max_model_len=4096)
    assert plan(model("Qwen/Qwen2.5-3B-Instruct"), small, busy).verdict is Verdict.FITS
    # Before 0.9.0 nothing was compared, and the memory ran out while the weights were loaded.
    assert plan(model(LLAMA), LaunchSettings(), replace(busy, free_bytes=10 * GIB), (0, 6, 3)).verdict is (
        Verdict.OOM_WEIGHTS
    )


def test_some_releases_took_what_others_hold_for_their_own() -> None:
    """0.6.4 and 0.8.0 to 0.9.0: a second server on one card has its neighbour's memory taken off its share."""
    shared = replace(boards.device("A100 80GB"), free_bytes=45 * GIB)
    launch = LaunchSettings(gpu_memory_utilization=0.4, max_model_len=8192)
    name = model("Qwen/Qwen3-8B")
    for counted, apart in (((0, 6, 4), (0, 6, 3)), ((0, 8, 5), (0, 7, 3)), ((0, 9, 0), (0, 9, 1))):
        theirs, own = (plan(name, launch, shared, release) for release in (counted, apart))
        assert theirs.verdict is Verdict.OOM_KV and own.verdict is Verdict.FITS
    idle = replace(shared, free_bytes=shared.total_bytes - GIB // 2)
    assert plan(name, launch, idle, (0, 8, 5)).verdict is Verdict.FITS


def test_a_given_size_of_the_cache_is_taken_as_it_is() -> None:
    found = planned(LLAMA, "H100", LaunchSettings(kv_cache_memory_bytes=GIB, max_model_len=4096))
    assert (found.exact, found.kv_cache.typical, found.blocks) == (True, GIB, 512)
    assert (found.tokens, found.max_concurrency) == (8192, 2.0)


def test_auto_length_is_cut_to_what_fits() -> None:
    found = planned(LLAMA, "L4", LaunchSettings(max_model_len=-1))
    assert 16384 < found.max_model_len == found.largest_max_model_len < 131072


def test_certain_only_outside_of_the_band() -> None:
    name, board = "Qwen/Qwen2.5-32B-Instruct", "H100"
    shares = [s / 100 for s in range(70, 96)]
    found = [planned(name, board, LaunchSettings(gpu_memory_utilization=s), (0, 20, 2)) for s in shares]
    kinds = [(p.verdict is Verdict.FITS, p.certainty is Certainty.CERTAIN) for p in found]
    assert kinds[0] == (False, True)
    assert kinds[-1] == (True, True)
    assert (True, False) in kinds or (False, False) in kinds
    for p in found:
        if p.fits:
            assert p.kv_cache.low >= p.needed_bytes
        if p.fails:
            assert p.kv_cache.high < p.needed_bytes + 2 * 2**20 * 16


def test_old_releases_kept_all_heads_of_deepseek() -> None:
    settings = LaunchSettings(tensor_parallel_size=2, dtype="float16")
    old = planned("deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct", "L40:2", settings, (0, 5, 0))
    assert old.bytes_per_token == 221184
    assert old.verdict is Verdict.OOM_KV


KEYS = {
    "schema", "model", "gpu", "verdict", "confidence", "parameters", "weights_bytes_total", "per_gpu", "kv",
    "max_model_len", "largest_max_model_len", "launch",
}  # fmt: skip


def test_the_document_has_the_keys_of_the_contract() -> None:
    found = document(planned(LLAMA, "H100:2", LaunchSettings(tensor_parallel_size=2)), LLAMA, "vllm serve x", None)
    assert set(found) >= KEYS
    assert found["schema"] == "vllm-doctor/plan/1"
    assert found["gpu"] == {"name": "H100 80GB HBM3", "count": 2, "memory_bytes": int(79.19 * GIB)}
    assert found["parameters"] == 8030261248
    assert set(found["per_gpu"]) == {
        "budget_bytes", "weights_bytes", "activation_bytes", "cudagraph_bytes", "other_bytes", "kv_cache_bytes",
    }  # fmt: skip
    parts = found["per_gpu"]
    taken = sum(v for k, v in parts.items() if k != "budget_bytes")
    assert taken == pytest.approx(parts["budget_bytes"], abs=2)
    assert found["kv"]["tokens"] == found["kv"]["blocks"] * found["kv"]["block_size"]


@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0.01, 1.0),
    length=st.one_of(st.none(), st.just(-1), st.integers(1, 1 << 30)),
    sequences=st.one_of(st.none(), st.integers(1, 1 << 16)),
    tokens=st.one_of(st.none(), st.integers(1, 1 << 20)),
    tensor=st.sampled_from([1, 2, 4, 8, 16]),
    eager=st.booleans(),
    release=st.sampled_from([(0, 4, 0), (0, 8, 5), (0, 11, 0), (0, 19, 0), (0, 25, 0), (0, 32, 0)]),
)
def test_no_nonsense_whatever_is_asked(share, length, sequences, tokens, tensor, eager, release) -> None:  # type: ignore[no-untyped-def]
    asked = LaunchSettings(
        gpu_memory_utilization=share,
        max_model_len=length,
        max_num_seqs=sequences,
        max_num_batched_tokens=tokens,
        tensor_parallel_size=tensor,
        enforce_eager=eager,
    )
    found = planned(LLAMA, "H100:8", asked, release)
    _assert_sane(found)


def _assert_sane(found: Plan) -> None:
    assert found.kv_cache.low <= found.kv_cache.typical <= found.kv_cache.high
    assert found.largest_max_model_len >= 0
    assert found.safe_max_model_len <= found.largest_max_model_len
    assert not (found.fits and found.fails)
    if found.verdict is Verdict.FITS:
        assert found.tokens > 0 and found.error in (None, found.error)
        assert found.weights.per_gpu_bytes > GIB // 2
    else:
        assert found.error and found.tokens == 0


def test_holders_of_nothing() -> None:
    assert holders(()) == ()
