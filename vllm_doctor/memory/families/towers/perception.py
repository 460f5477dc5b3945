"""Perception encoders and towers with windows of queries: Step-VL, Granite 4 Vision, Kanana-V, Phi-4's SigLIP 2."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    MissingPart,
    Towers,
    cut,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    part,
    patches,
    perceptron,
    text_width,
    times,
)
from vllm_doctor.memory.families.towers.llava import seen
from vllm_doctor.memory.families.towers.navit import siglip2
from vllm_doctor.memory.families.towers.qwen import qwen2_blocks
from vllm_doctor.memory.families.towers.vits import feature_layers, q_former, siglip


def perception(vision: Config) -> Tensors:
    """Meta's perception encoder, and two convolutions that make fewer patches (step_vl.py PerceptionEncoder)."""
    width, layers = vision.positive("width"), vision.positive("layers", largest=2048)
    feed = int(width * vision.number("mlp_ratio", 4.0))
    classes = 1 if vision.flag("use_cls_token") else 0
    places = (vision.positive("image_size") // vision.positive("patch_size")) ** 2 + classes
    scales = 2 if vision.get("ls_init_value") is not None else 0
    return (
        *(numbers(width) if classes else ()),
        *(numbers(places, width) if vision.flag("use_abs_posemb", default=True) else ()),
        *patches(vision, width, bias=False),
        *(layer_norm(width) if vision.flag("use_ln_pre", default=True) else ()),
        *times(Block(width, feed, scales=scales).tensors(), layers),
        *(layer_norm(width) if vision.flag("use_ln_post", default=True) else ()),
        *kept_numbers(2 * width, width * 9),
        *kept_numbers(4 * width, 2 * width * 9),
    )


def step(whole: Config) -> Towers:
    """Step3-VL-10B and Step 3.7 (step_vl.py, step3p7.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("width")
    joins = cut(text_width(whole), 4 * width, bias=whole.flag("projector_bias"))
    return Towers((*perception(vision), *joins), True, width, vision.positive("layers", largest=2048))


_FORMER = {"num_hidden_layers": 1, "intermediate_size": 3072, "cross_attention_frequency": 1}
_SPATIAL_GROUPS = 4


def granite4(whole: Config) -> Towers:
    """Granite 4 Vision: a Q-Former over windows for every layer that is fed, and four more (granite4_vision.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    taken = whole.get("deepstack_layer_map")
    sides = (whole.text("downsample_rate") or "").split("/")
    if not isinstance(taken, list) or len(taken) > 2048 or len(sides) != 2 or not all(s.isdecimal() for s in sides):
        raise MissingPart("deepstack_layer_map or downsample_rate is missing")
    query, window = (min(int(s[:4]), 1024) for s in sides)
    former = (
        *q_former(Config({**_FORMER, "hidden_size": width, "encoder_hidden_size": width})),
        *numbers(query * query, width),
        *numbers(window * window, width),
        *layer_norm(width),
        *kept(text_width(whole), width),
    )
    line = numbers(text_width(whole)) if whole.flag("use_image_newline_parameter") else ()
    tensors = (*siglip(vision, post_norm=False), *times(former, len(taken) + _SPATIAL_GROUPS), *line)
    return seen(tensors, vision)


def phi4(whole: Config) -> Towers:
    """Phi-4 with SigLIP 2: all blocks but the last, two projections (phi4siglip.py)."""
    vision, hidden = part(whole, "vision_config"), whole.positive("hidden_size")
    layers = feature_layers(whole, vision, "mm_vision_select_layer")
    joins = perceptron(vision.positive("hidden_size"), hidden, hidden)
    return seen((*siglip2(vision, layers, post_norm=False), *joins), vision)


def kanana(whole: Config) -> Towers:
    """Kanana-V: Qwen2-VL's blocks, and an abstractor of two stages of RegNet's bottlenecks (kanana_v.py)."""
    vision, projector = part(whole, "vision_config"), part(whole, "projector_config")
    width, inner = projector.positive("encoder_hidden_size"), projector.positive("hidden_size")
    out, depth = projector.positive("output_hidden_size"), projector.positive("depth", largest=64)
    merged = inner * projector.positive("merge_size", default=2) ** 2

    def stage(start: int) -> Tensors:
        first = (*_bottleneck(start, inner), *numbers(inner, start), *layer_norm(inner))
        return (*first, *times(_bottleneck(inner, inner), depth - 1))

    layers = projector.positive("mlp_depth", default=2, largest=64)
    readout = (*kept(out, inner), *times(kept(out, out), layers - 1))
    positions = projector.count("pos_emb_size", default=0) if projector.flag("pos_emb", default=True) else 0
    tensors = (
        *qwen2_blocks(vision),
        *(numbers(positions, width) if positions else ()),
        *stage(width),
        *stage(merged),
        *readout,
    )
    return Towers(tensors, True, width, vision.positive("depth", largest=2048))


def _bottleneck(start: int, inner: int) -> Tensors:
    """1 x 1, 3 x 3 by channel, squeeze to a quarter of what comes in, 1 x 1; each with a norm."""
    small = start // 4
    return (
        *numbers(inner, start),
        *numbers(inner, 9),
        *kept_numbers(small, inner),
        *kept_numbers(inner, small),
        *numbers(inner, inner),
        *times(layer_norm(inner), 3),
    )
