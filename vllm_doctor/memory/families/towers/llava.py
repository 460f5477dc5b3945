"""Towers in the way of LLaVA: CLIP, SigLIP or Pixtral, and a projector of one or two layers."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.blocks import (
    Towers,
    cut,
    depth_of,
    fp32,
    joined,
    kept,
    layer_norm,
    numbers,
    part,
    patches,
    perceptron,
    rms_norm,
    text_width,
    times,
)
from vllm_doctor.memory.families.towers.vits import blip, clip, encoder, feature_layers, pixtral, q_former, siglip


def seen(tensors: Tensors, vision: Config, doubts: tuple[str, ...] = ()) -> Towers:
    """The towers of a model that looks at images."""
    return Towers(tensors, True, vision.positive("hidden_size"), depth_of(vision), doubts)


def tower(whole: Config, vision: Config, *, post_norm: bool | None = None) -> Tensors:
    """The tower by its type, as deep as its features are taken (llava.py init_vision_tower_for_llava)."""
    layers = feature_layers(whole, vision)
    if vision.model_type == "pixtral":
        return pixtral(vision, layers)
    if vision.model_type == "clip_vision_model":
        return clip(vision, layers, post_norm=post_norm)
    return siglip(vision, layers, post_norm=post_norm)


_KNOWN = ("clip_vision_model", "siglip_vision_model", "pixtral")


def doubts_of(vision: Config) -> tuple[str, ...]:
    """A tower of another type is counted as SigLIP, and called an estimate."""
    if vision.model_type in _KNOWN:
        return ()
    return (f"the vision tower ({vision.model_type}) is an estimate",)


def llava(whole: Config) -> Towers:
    """LLaVA 1.5 (llava.py)."""
    vision = part(whole, "vision_config")
    width, hidden = vision.positive("hidden_size"), text_width(whole)
    bias = whole.flag("multimodal_projector_bias", default=True)
    joins = perceptron(width, hidden, hidden, bias=bias)
    return seen((*tower(whole, vision, post_norm=False), *joins), vision, doubts_of(vision))


def llava_next(whole: Config) -> Towers:
    """LLaVA-NeXT, its video model and LLaVA-OneVision: a row that marks new lines too (llava_next.py)."""
    base = llava(whole)
    return base._replace(tensors=(*base.tensors, *numbers(text_width(whole))))


def llava_video(whole: Config) -> Towers:
    """LLaVA-NeXT-Video: no new lines (llava_next_video.py)."""
    return llava(whole)


def llava_onevision(whole: Config) -> Towers:
    """LLaVA-OneVision: a projector that no rank divides (llava_onevision.py)."""
    vision = part(whole, "vision_config")
    width, hidden = vision.positive("hidden_size"), text_width(whole)
    bias = whole.flag("multimodal_projector_bias", default=True)
    joins = perceptron(width, hidden, hidden, bias=bias, split=False)
    tensors = (*tower(whole, vision, post_norm=False), *joins, *numbers(hidden))
    return seen(tensors, vision, doubts_of(vision))


def gemma3(whole: Config) -> Towers:
    """Gemma 3: SigLIP, a norm and one projection (gemma3_mm.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    joins = (*rms_norm(width), *kept(text_width(whole), width, bias=False))
    return seen((*siglip(vision), *joins), vision, doubts_of(vision))


def paligemma(whole: Config) -> Towers:
    """PaliGemma: SigLIP and one projection (paligemma.py)."""
    vision = part(whole, "vision_config")
    width = whole.positive("projection_dim", default=text_width(whole))
    joins = kept(width, vision.positive("hidden_size"))
    return seen((*siglip(vision), *joins), vision, doubts_of(vision))


def colpali(whole: Config) -> Towers:
    """ColPali: PaliGemma in vlm_config, and a projection of what it ends in, kept in fp32 (colpali.py)."""
    model = whole.section("vlm_config") or whole
    base = paligemma(model)
    width = whole.positive("embedding_dim", "dim", default=128)
    projection = kept(width, text_width(model), bias=False)
    return base._replace(tensors=(*base.tensors, *fp32(projection)))


def mistral3(whole: Config) -> Towers:
    """Mistral 3 and LightOnOCR: Pixtral, patches merged, two projections (mistral3.py)."""
    vision = part(whole, "vision_config")
    width, hidden = vision.positive("hidden_size"), text_width(whole)
    merge = whole.positive("spatial_merge_size", default=2) ** 2
    bias = whole.flag("multimodal_projector_bias")
    joins = (
        *rms_norm(width),
        *kept(width, width * merge, bias=False),
        *perceptron(width, hidden, hidden, bias=bias),
    )
    layers = feature_layers(whole, vision, default=-1)
    found = pixtral(vision, layers) if vision.model_type == "pixtral" else tower(whole, vision)
    return seen((*found, *joins), vision, doubts_of(vision))


def idefics3(whole: Config) -> Towers:
    """Idefics3 and SmolVLM: SigLIP, pixels shuffled, one projection (idefics3.py)."""
    vision = part(whole, "vision_config")
    scale = whole.positive("scale_factor", default=2)
    width = vision.positive("hidden_size")
    return seen((*siglip(vision), *kept(text_width(whole), width * scale * scale, bias=False)), vision)


def pixtral_chat(whole: Config) -> Towers:
    """Pixtral in Mistral's own form: a merger of patches in some, two projections (pixtral.py)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width = vision.positive("hidden_size")
    merge = vision.positive("spatial_merge_size", default=2) ** 2
    merged = kept(width, width * merge, bias=False) if vision.text("mm_projector_id") == "patch_merge" else ()
    normed = rms_norm(width) if vision.flag("add_pre_mm_projector_layer_norm") else ()
    bias = vision.flag("adapter_bias", default=True)
    return seen(
        (*pixtral(vision), *normed, *merged, *perceptron(width, hidden, hidden, bias=bias, split=False)), vision
    )


def cohere2_vision(whole: Config) -> Towers:
    """Command A Vision, Aya Vision 2: SigLIP, pixels shuffled, a gated projector (cohere2_vision.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    inner = whole.positive("alignment_intermediate_size", default=36864)
    scale = whole.positive("downsample_factor", default=2) ** 2
    joins = (*cut(inner, width * scale), *joined(text_width(whole), inner // 2))
    return seen((*siglip(vision), *joins), vision, doubts_of(vision))


def blip2(whole: Config) -> Towers:
    """BLIP-2: a vision transformer, a Q-Former with learned queries, one projection (blip2.py)."""
    vision, former = part(whole, "vision_config"), part(whole, "qformer_config")
    width = former.positive("hidden_size")
    tensors = (
        *numbers(whole.positive("num_query_tokens", default=32), width),
        *blip(vision),
        *q_former(former),
        *kept(text_width(whole), width),
    )
    return seen(tensors, vision)


def llama4(whole: Config) -> Towers:
    """Llama 4: a vision transformer, an adapter of two layers and one projection (mllama4.py)."""
    vision = part(whole, "vision_config")
    width, feed, patch = (vision.positive(k) for k in ("hidden_size", "intermediate_size", "patch_size"))
    places = (vision.positive("image_size") // patch) ** 2 + 1
    inner, out = vision.positive("projector_input_dim"), vision.positive("projector_output_dim")
    tensors = (
        *numbers(width),
        *numbers(places, width),
        *cut(width, 3 * patch * patch, bias=False),
        *layer_norm(width),
        *layer_norm(width),
        *encoder(vision),
        *cut(inner, feed, bias=False),
        *joined(out, inner, bias=False),
        *cut(text_width(whole), vision.positive("vision_output_dim"), bias=False),
    )
    return seen(tensors, vision)


def minimax_m3(whole: Config) -> Towers:
    """MiniMax-M3: a CLIP-like tower, a projector and a merger of patches (minimax_m3/common/vision_tower.py)."""
    vision = part(whole, "vision_config")
    packing, hidden = part(vision, "img_token_compression_config"), text_width(whole)
    width = vision.positive("hidden_size")
    inner = whole.optional("projector_hidden_size") or hidden
    merge = packing.positive("spatial_merge_size", default=2) ** 2
    tensors = (
        *patches(vision, width, packing.positive("temporal_patch_size", default=2), bias=False),
        *layer_norm(width),
        *encoder(vision),
        *perceptron(width, inner, hidden, bias=vision.flag("multimodal_projector_bias", default=True)),
        *perceptron(hidden * merge, inner, hidden, bias=vision.flag("patch_merge_bias", default=True)),
    )
    return seen(tensors, vision)


def aria(whole: Config) -> Towers:
    """Aria: SigLIP without its last norm, queries that attend to the patches, two layers (aria.py)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width = vision.positive("hidden_size")
    layers = feature_layers(whole, vision, default=-1)
    attending = (
        *kept(3 * width, width, bias=False),
        *kept(3 * width, width),
        *kept(width, width),
        *kept(width, width),
        *times(layer_norm(width), 3),
    )
    queries = numbers(whole.positive("max_value_projector_patch_to_query_dict", default=256), width)
    joins = (*attending, *queries, *perceptron(width, hidden, hidden, bias=False))
    return seen((*siglip(vision, layers, post_norm=False), *joins), vision)


def bee(whole: Config) -> Towers:
    """Bee: a norm before a projector four times as wide, whole on every rank (bee.py)."""
    return _normed(whole, 4)


def r_vl(whole: Config) -> Towers:
    """R-4B: a norm before the projector, whole on every rank (rvl.py)."""
    return _normed(whole, 1)


def _normed(whole: Config, wide: int) -> Towers:
    vision = part(whole, "vision_config")
    width, hidden = vision.positive("hidden_size"), text_width(whole)
    bias = whole.flag("multimodal_projector_bias", default=True)
    joins = (*layer_norm(width), *perceptron(width, wide * hidden, hidden, bias=bias, split=False))
    return seen((*tower(whole, vision, post_norm=False), *joins, *numbers(hidden)), vision, doubts_of(vision))


def bagel(whole: Config) -> Towers:
    """BAGEL: SigLIP and two projections; what makes images stays in the checkpoint (bagel.py)."""
    vision, hidden = part(whole, "vit_config"), text_width(whole)
    width = vision.positive("hidden_size")
    return seen((*siglip(vision), *perceptron(width, hidden, hidden)), vision)
