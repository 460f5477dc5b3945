"""Vision transformers that are nearly another model's: Ling 3.0 VL's, openPangu VL's, Kimi K3's."""

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config
from vllm_doctor.memory.facts import Split
from vllm_doctor.memory.families.parts import Tensors, linear, norm, norms
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    Towers,
    depth_of,
    kept_numbers,
    layer_norm,
    numbers,
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


def kimi_k3(whole: Config) -> Towers:
    """Kimi K3: Kimi-K2.5's tower with heads and biases of its own (kimi_k25_vit.py, configs/kimi_k3.py)."""
    vision = part(whole, "vision_config")
    width, feed = vision.positive("vt_hidden_size", default=1024), vision.positive("vt_intermediate_size", default=4096)
    layers = vision.positive("vt_num_hidden_layers", default=27, largest=LARGEST_LAYERS)
    heads = vision.positive("vt_num_attention_heads", default=12)
    inner = vision.positive("qkv_hidden_size", default=1536)
    biased, rms = vision.flag("attn_bias"), (vision.text("norm_type") or "rmsnorm") == "rmsnorm"
    bias = vision.flag("linear_bias")
    block = (
        *linear("vision.attn.qkv", 3 * inner, width, Split.ROWS, bias=biased, heads=heads),
        *linear("vision.attn.proj", width, inner, Split.COLUMNS, bias=biased, heads=heads),
        *linear("vision.mlp.fc0", feed, width, Split.ROWS, bias=bias, heads=heads),
        *linear("vision.mlp.fc1", width, feed, Split.COLUMNS, bias=bias, heads=heads),
        *norms(2, width, bias=not rms),
    )
    sides = [vision.positive(f"init_pos_emb_{s}", default=64) for s in ("height", "width")]
    patch = vision.positive("patch_size", default=14)
    return Towers(
        (
            *kept_numbers(width, 3 * patch**2, bias=vision.flag("patch_embed_proj_bias")),
            *numbers(sides[0] * sides[1], width),
            *times(block, layers),
            *norm("vision.final_layernorm", width, bias=not rms),
            *_k3_projector(vision, width, text_width(whole)),
        ),
        True,
        width,
        layers,
    )


def _k3_projector(vision: Config, width: int, hidden: int) -> Tensors:
    listed = vision.counts("merge_kernel_size")
    merged = width * (listed[0] * listed[1] if len(listed) == 2 else 4)
    if (vision.text("mm_projector_type") or "patchmergerv2") == "patchmergerv2":
        return (*perceptron(merged, merged, hidden, bias=False, split=False), *rms_norm(hidden))
    return (*layer_norm(width), *perceptron(merged, merged, hidden, split=False))


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
