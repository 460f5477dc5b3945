"""The canary against a Llama written out in torch: right in every dtype, and wrong with every fault that is put in."""

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.trial import copier
from vllm_doctor.trial import canary, proof

pytestmark = pytest.mark.real_vllm

REFERENCE = Path(__file__).with_name("canary_reference.py")
END = "<|im_end|>"

RANKS = range(8)
FAULTS = (
    # Attention
    "attention lost", "attention of layer 0 lost", "attention of layer 1 lost", "no softmax", "softmax scaled down",
    "partial sums averaged", "future seen", "mask off by one", "window of 64", "KV heads dealt round",
    "second half of the heads lost", "second half of each head lost", "sixteen values of each head lost",
    *(f"head {head} of layer {layer} lost" for head in RANKS for layer in (0, 1)),
    # Positions
    "no rotary", "rotary by neighbours", "rotary of another base", "positions of decoding off by one",
    # The cache
    "writes of decoding lost", "writes of decoding one slot off", "last token of the prompt not written",
    "last block of the prompt not written", "blocks swapped", "block of values lost", "keys and values swapped",
    "layers share a cache", "newest token not read",
    # The rest
    "norm weights ignored", "gate and up swapped", "no activation", "MLP of layer 0 lost", "MLP of layer 1 lost",
    "second half of the MLPs lost", "layer 0 left out", "layer 1 left out", "logits of another token",
    # Parallel
    *(f"rank {rank} of 8 lost" for rank in RANKS), "shard of the embedding lost", "shard of the head lost",
)  # fmt: skip


def answers(python: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [python, REFERENCE, canary.folder()], input=json.dumps(cases), capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_it_is_right_in_every_dtype_whole_and_in_pieces(vllm_python: Path) -> None:
    """Also where the cache holds 8-bit numbers; and no token is a close call: e**-10 is one in 22,000."""
    call = copier.prompt(proof.called().messages, canary.tools())
    expected = {
        copier.prompt(proof.GREETING.messages): canary.SENTENCE,
        copier.prompt(proof.LONG.messages): canary.SENTENCE,
        call: copier.answer(call),
    }
    cases = [
        {"prompt": prompt, "expected": f"{said}{END}", "dtype": dtype, "chunk": chunk}
        for prompt, said in expected.items()
        for dtype in ("float32", "bfloat16", "float16", "fp8_e4m3", "fp8_e5m2", "fp8_e4m3 queries")
        for chunk in ((64,) if "LOREM" in prompt else (4096,))
    ]
    for case, came in zip(cases, answers(vllm_python, cases), strict=True):
        assert came["text"] == case["expected"], case
        assert came["margin"] > 10, case


def test_every_fault_changes_the_text(vllm_python: Path) -> None:
    said = f"{canary.SENTENCE}{END}"
    cases = [
        {"prompt": copier.prompt(proof.GREETING.messages), "expected": said, "fault": fault} for fault in ("", *FAULTS)
    ]
    long = copier.prompt(proof.LONG.messages)
    cases.append({"prompt": long, "expected": said, "fault": "positions in bfloat16"})
    came = answers(vllm_python, cases)
    assert [case["fault"] for case, one in zip(cases, came, strict=True) if one["text"] == said] == [""]


def test_every_tensor_is_needed_and_in_its_order(vllm_python: Path) -> None:
    """Weights that were not loaded, or by the wrong ranks; and sixteen values of one head."""
    said = f"{canary.SENTENCE}{END}"
    names = [*tensors(), ""]
    faults = [f"zeros: {name}" if name else "" for name in names]
    faults += [f"shards displaced: {name}" for name in names if name and "norm" not in name]
    # A thread block, or a vector of lanes, that is left out in one KV head.
    faults += [f"rows lost: {name}@{start}" for name in names if "v_proj" in name for start in range(0, 512, 16)]
    cases = [{"prompt": copier.prompt(proof.GREETING.messages), "expected": said, "fault": fault} for fault in faults]
    came = answers(vllm_python, cases)
    assert len(cases) == 21 + 1 + 16 + 64
    assert [case["fault"] for case, one in zip(cases, came, strict=True) if one["text"] == said] == [""]


def tensors() -> list[str]:
    data = (canary.folder() / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    return [name for name in header if name != "__metadata__"]


def test_every_fault_is_one_that_the_reference_knows() -> None:
    """A misspelt fault would be none, and its test pass for the wrong reason."""
    source = REFERENCE.read_text()
    numbered = ("head ", "rank ", "attention of layer ", "MLP of layer ", "layer ")
    plain = [fault for fault in FAULTS if not (fault.startswith(numbered) and any(c.isdigit() for c in fault))]
    assert [fault for fault in (*plain, "positions in bfloat16") if f'"{fault}"' not in source] == []
