"""The towers of GLM: GLM-4.1V to 4.6V, GLM-OCR, and GLM-4V of before."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    Towers,
    cut,
    depth_of,
    grid,
    joined,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    part,
    patches,
    rms_norm,
    text_of,
    times,
)
from vllm_doctor.memory.families.towers.llava import seen


def _merger(out: int, inner: int) -> Tensors:
    return (
        *cut(out, out, bias=False),
        *layer_norm(out),
        *cut(2 * inner, out, bias=False),
        *joined(out, inner, bias=False),
    )


def glm4v(whole: Config) -> Towers:
    """GLM-4.1V, GLM-4.5V: the blocks' MLP is as wide as what the tower hands on (glm4_1v.py)."""
    vision = part(whole, "vision_config")
    width, out = vision.positive("hidden_size"), vision.positive("out_hidden_size")
    merge = vision.positive("spatial_merge_size", default=2) ** 2
    block = Block(width, out, True, True, qkv_bias=False, out_bias=False, feed_bias=False)
    inner = vision.positive("intermediate_size")
    tensors = (
        *patches(vision, width, vision.positive("temporal_patch_size", default=2)),
        *times(block.tensors(), depth_of(vision)),
        *_merger(out, inner),
        *numbers(grid(vision), width),
        *rms_norm(width),
        *kept_numbers(out, width * merge),
        *rms_norm(width),
    )
    return seen(tensors, vision)


def glm_ocr(whole: Config) -> Towers:
    """GLM-OCR: norms of queries and keys, biases, no positions (glm_ocr.py)."""
    return _without_positions(part(whole, "vision_config"), text_of(whole).positive("intermediate_size"))


def glm_next(whole: Config) -> Towers:
    """GLM-5.3-Flash: GLM-OCR's with a merger of a width of its own (glm5next/common/multimodal.py)."""
    vision = part(whole, "vision_config")
    return _without_positions(vision, vision.positive("projection_intermediate_size", default=10240))


def _without_positions(vision: Config, inner: int) -> Towers:
    width, out = vision.positive("hidden_size"), vision.positive("out_hidden_size")
    merge = vision.positive("spatial_merge_size", default=2) ** 2
    size = width // vision.positive("num_heads", "num_attention_heads")
    block = Block(width, vision.positive("intermediate_size"), True, True, query_key_norm=size)
    tensors = (
        *patches(vision, width, vision.positive("temporal_patch_size", default=2)),
        *times(block.tensors(), depth_of(vision)),
        *_merger(out, inner),
        *kept_numbers(out, width * merge),
        *rms_norm(width),
    )
    return seen(tensors, vision)


def glm4v_chat(whole: Config) -> Towers:
    """GLM-4V: EVA-CLIP's blocks, a convolution, a gated projector (glm4v.py)."""
    vision = part(whole, "vision_config")
    width, hidden = vision.positive("hidden_size"), whole.positive("hidden_size")
    inner = whole.positive("ffn_hidden_size")
    block = Block(width, vision.positive("intermediate_size"))
    tensors = (
        *numbers(2, hidden),
        *numbers(width),
        *patches(vision, width),
        *numbers(vision.positive("num_positions"), width),
        *times(block.tensors(), depth_of(vision)),
        *kept_numbers(hidden, width * 4),
        *kept(hidden, hidden, bias=False),
        *layer_norm(hidden),
        *cut(2 * inner, hidden, bias=False),
        *joined(hidden, inner, bias=False),
    )
    return seen(tensors, vision)
