"""Bytes of a tensor on one rank, packed as its quantization method packs it."""

import math
from functools import lru_cache

from msgspec.structs import replace

from vllm_doctor.memory.facts import Quantization, Split, Tensor
from vllm_doctor.memory.sharding import Shard

EXPERT_SPLITS = (Split.EXPERT_ROWS, Split.EXPERT_COLUMNS)
SCALE_BYTES = 4
# 0.32 layers/quantization/mxfp4.py with fused_moe's rounding for Marlin and Triton on Hopper and before.
MXFP4_WIDTH_MULTIPLE = 128
# The least side of a block of FP8 that experts are served with.
_LEAST_BLOCK = 32
MXFP4_HIDDEN_MULTIPLE = 256

# Ways to pack routed experts alone.
_EXPERTS = {
    "mxfp4": Quantization(method="mxfp4", bits=4, group=32, float_format=True),
    "nvfp4": Quantization(method="nvfp4", bits=4, group=16, static_activations=True, float_format=True),
}


def packed_bytes(tensor: Tensor, part: Shard, quantization: Quantization, model_bytes: int) -> int:
    """Bytes of a linear layer's part of a rank: numbers, scales and zeros.

    Sources, vLLM 0.32 layers/quantization: auto_gptq.py and auto_awq.py (fp16 scale, packed zero per group), fp8.py
    (fp32 scales per tensor or block), compressed_tensors/schemes (fp32 scale per row, scale per group), modelopt.py
    (NVFP4: an FP8 scale per 16 and two fp32 numbers), mxfp4.py (a byte per 32).
    """
    columns = max(part.columns, 1)
    if quantization.experts is not None and tensor.split in EXPERT_SPLITS:
        quantization = _EXPERTS[quantization.experts]
    if quantization.method == "mxfp4" and tensor.split in EXPERT_SPLITS:
        return _mxfp4_bytes(tensor, part)
    if quantization.block is not None and tensor.split in EXPERT_SPLITS:
        quantization = replace(quantization, block=_refined(tensor, part, quantization.block))
    numbers = part.elements * quantization.bits // 8
    return numbers + part.copies * _scale_bytes(part.rows, columns, quantization, model_bytes)


def _refined(tensor: Tensor, part: Shard, block: tuple[int, int]) -> tuple[int, int]:
    """Smaller blocks where ranks would share one (0.29 on, fused_moe/oracle/fp8.py refine_fp8_moe_block_shape)."""
    up = tensor.split is Split.EXPERT_ROWS
    width, hidden = (part.rows // 2, part.columns) if up else (part.columns, part.rows)
    side = math.gcd(*block, width, hidden)
    return (side, side) if width % block[0] and side >= _LEAST_BLOCK else block


def _scale_bytes(rows: int, columns: int, quantization: Quantization, model_bytes: int) -> int:
    if quantization.block is not None:
        block_rows, block_columns = quantization.block
        return -(-rows // block_rows) * -(-columns // block_columns) * quantization.scale_bytes
    match quantization.method:
        case "nvfp4":
            return rows * (columns // max(1, quantization.group)) + 2 * SCALE_BYTES
        case "mxfp4" | "mxfp8":
            return rows * (columns // 32)
        case "bitsandbytes":
            return rows * columns // 64 * SCALE_BYTES if quantization.bits == 4 else rows * SCALE_BYTES
        case _:
            return _grouped_bytes(rows, columns, quantization, model_bytes)


def _grouped_bytes(rows: int, columns: int, quantization: Quantization, model_bytes: int) -> int:
    if quantization.group == -1:
        return SCALE_BYTES * (2 if quantization.static_activations else 1)
    if quantization.group == 0 and (quantization.bits == 8 or quantization.float_format):
        return rows * SCALE_BYTES
    groups = -(-columns // quantization.group) if quantization.group else 1
    zeros = 0 if quantization.symmetric else rows * groups * quantization.bits // 8
    order = columns * 4 if quantization.activation_order else 0
    return rows * groups * model_bytes + zeros + order


def _mxfp4_bytes(tensor: Tensor, part: Shard) -> int:
    """Experts' sides are rounded up: the width to 128, the hidden size to 256."""
    rows, columns = part.rows, part.columns
    if tensor.split is Split.EXPERT_ROWS:
        rows, columns = 2 * _up(rows // 2, MXFP4_WIDTH_MULTIPLE), _up(columns, MXFP4_HIDDEN_MULTIPLE)
    else:
        rows, columns = _up(rows, MXFP4_HIDDEN_MULTIPLE), _up(columns, MXFP4_WIDTH_MULTIPLE)
    return part.copies * (rows * columns // 2 + rows * columns // 32)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def is_packed(tensor: Tensor, quantization: Quantization) -> bool:
    """Whether the method packs this tensor, by its kind; lists of ignored modules come on top."""
    if not tensor.linear or tensor.columns == 0:
        return False
    if tensor.split is Split.VOCABULARY:
        return quantization.quantized_head
    if quantization.method == "mxfp4" and quantization.ignored:
        return tensor.split in EXPERT_SPLITS
    if quantization.method in ("experts_int8", "moe_wna16"):
        return tensor.split in EXPERT_SPLITS
    return True


@lru_cache(maxsize=64)
def ignored_names(patterns: tuple[str, ...]) -> tuple[frozenset[str], frozenset[tuple[int, str]]]:
    """Module names that are left out in all layers, and those that are left out in one layer."""
    everywhere: set[str] = set()
    single: set[tuple[int, str]] = set()
    for pattern in patterns:
        words = pattern.removeprefix("re:").strip("^$").replace("\\", "").replace(".*", "*").replace("[0-9]+", "*")
        parts = [p for p in words.replace("*", ".").split(".") if p]
        index = next((int(p) for p in parts if p.isdecimal() and len(p) < 6), None)
        if "layers" in parts:
            parts = parts[parts.index("layers") + 1 :]
        name = ".".join(p for p in parts if p != "model" and not p.isdecimal())
        if index is not None and "layers" in words:
            single.add((index, name))
        elif name:
            everywhere.add(name)
    return frozenset(everywhere), frozenset(single)


def matches(name: str, patterns: frozenset[str]) -> bool:
    """Whether a module's name is one of the patterns, or inside of one."""
    if not patterns:
        return False
    parts = name.split(".")
    return any(".".join(parts[i:j]) in patterns for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))
