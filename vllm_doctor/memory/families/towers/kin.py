"""Vision transformers that are nearly Qwen-VL's: Ling 3.0 VL's and openPangu VL's."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    Towers,
    depth_of,
    kept_numbers,
    part,
    patches,
    perceptron,
    rms_norm,
    text_width,
    times,
)
from vllm_doctor.memory.families.towers.qwen import merger, qwen3_blocks

# Of the blocks that openPangu VL takes states from, where the config names none (openpangu_vl.py).
_TAKEN = 2


def ling_vl(whole: Config) -> Towers:
    """Ling 3.0 VL: Qwen3-VL's tower whose merger has no MLP, and a projector (bailing_moe_v3_vl.py)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width = vision.positive("hidden_size")
    merged = width * vision.positive("spatial_merge_size", default=2) ** 2
    tensors = (*qwen3_blocks(vision), *perceptron(merged, hidden, hidden))
    return Towers(tensors, True, width, depth_of(vision), media=("image",))


def pangu_vl(whole: Config) -> Towers:
    """openPangu VL: a merger for each of the states that are taken, and one projection (openpangu_vl.py)."""
    vision = part(whole, "vision_config")
    width, out = vision.positive("hidden_size"), vision.positive("out_hidden_size")
    taken = vision.get("mm_unit_vision_select_layer")
    mergers = len(taken) if isinstance(taken, list) and 0 < len(taken) <= depth_of(vision) else _TAKEN
    block = Block(width, vision.positive("intermediate_size"), vision.text("hidden_act") == "silu", True)
    tensors = (
        *patches(vision, width, vision.positive("temporal_patch_size", default=2), bias=False),
        *times(block.tensors(), depth_of(vision)),
        *rms_norm(width),
        *times((*rms_norm(width), *merger(width, out, vision)), mergers),
        *kept_numbers(text_width(whole), out),
    )
    return Towers(tensors, True, width, depth_of(vision))
