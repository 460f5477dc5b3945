"""Encoders of images of any shape, with SigLIP's blocks: MoonViT, SigLIP 2, AIMv2, PaddleOCR's, Muse Glimmer's."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.facts import Split
from vllm_doctor.memory.families.parts import Tensors, linear, norms
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
    perceptron,
    rms_norm,
    text_width,
    times,
    whole_on_ranks,
)
from vllm_doctor.memory.families.towers.llava import seen
from vllm_doctor.memory.families.towers.vits import encoder, siglip

# Visual tokens without a row in the head of Ovis (ovis.py IMAGE_INDICATOR_IDS).
_OVIS_INDICATORS = 5
_OVIS2_5_INDICATORS = 4
# Rows of Keye's table of positions for packed images (keye.py packing_position_embedding).
_KEYE_PACKED_POSITIONS = 32768


def _merge(config: Config, key: str, default: int = 2) -> int:
    """Patches that are taken together, of a side or of both sides."""
    sides = config.get(key)
    if isinstance(sides, list):
        rows, columns = (*config.counts(key), default, default)[:2]
        return rows * columns
    return config.positive(key, default=default) ** 2


def moonvit(vision: Config) -> Tensors:
    """MoonViT (moonvit.py, kimi_k25_vit.py); whole on every rank where the ranks do not divide its heads."""
    width, heads = vision.positive("hidden_size"), vision.positive("num_attention_heads")
    rows = vision.positive("pos_emb_height", "init_pos_emb_height") * vision.positive(
        "pos_emb_width", "init_pos_emb_width"
    )
    feed = vision.positive("intermediate_size")
    block = (
        *linear("vision.attn.qkv", 3 * width, width, Split.ROWS, bias=True, heads=heads),
        *linear("vision.attn.proj", width, width, Split.COLUMNS, bias=True, heads=heads),
        *linear("vision.mlp.fc0", feed, width, Split.ROWS, bias=True, heads=heads),
        *linear("vision.mlp.fc1", width, feed, Split.COLUMNS, bias=True, heads=heads),
        *norms(2, width, bias=True),
    )
    return (
        *patches(vision, width),
        *numbers(rows, width),
        *times(block, depth_of(vision)),
        *layer_norm(width),
    )


def kimi(whole: Config) -> Towers:
    """Kimi-VL, Kimi-K2.5: MoonViT, patches merged, two projections (kimi_vl.py, kimi_k25.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    merged = width * _merge(vision, "merge_kernel_size")
    joins = (*layer_norm(width), *perceptron(merged, merged, text_width(whole), split=False))
    return seen((*moonvit(vision), *joins), vision)


def siglip2(vision: Config, layers: int | None = None, *, post_norm: bool = True) -> Tensors:
    """SigLIP 2 with patches as rows (lfm2_siglip2.py)."""
    width = vision.positive("hidden_size")
    channels = vision.count("num_channels", default=3)
    return (
        *kept(width, channels * vision.positive("patch_size") ** 2),
        *numbers(vision.positive("num_patches"), width),
        *encoder(vision, layers),
        *(layer_norm(width) if post_norm else ()),
    )


def lfm2(whole: Config) -> Towers:
    """LFM2-VL (lfm2_vl.py)."""
    vision = part(whole, "vision_config")
    columns = vision.positive("hidden_size") * whole.positive("downsample_factor", default=2) ** 2
    bias = whole.flag("projector_bias", default=True)
    joins = (
        *(layer_norm(columns) if whole.flag("projector_use_layernorm", default=True) else ()),
        *perceptron(columns, whole.positive("projector_hidden_size"), text_width(whole), bias=bias, split=False),
    )
    return seen((*siglip2(vision), *joins), vision)


def cosmos3_edge(whole: Config) -> Towers:
    """Cosmos 3 Edge: SigLIP 2 and a projector with numbers of its own (cosmos3_edge.py)."""
    vision, projector = part(whole, "vision_config"), part(whole, "projector_config")
    width = projector.positive("input_hidden_size")
    columns = width * _merge(projector, "spatial_merge_size")
    joins = (
        *layer_norm(columns if projector.flag("use_postshuffle_norm") else width),
        *perceptron(columns, projector.positive("merger_intermediate_size"), projector.positive("out_hidden_size")),
    )
    return seen((*siglip2(vision), *joins), vision)


def paddleocr(whole: Config) -> Towers:
    """PaddleOCR-VL: SigLIP, patches merged, two projections (paddleocr_vl.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    merged = width * _merge(vision, "spatial_merge_size")
    joins = (*layer_norm(width), *perceptron(merged, merged, text_width(whole), split=False))
    return seen((*siglip(vision), *joins), vision)


def aimv2(vision: Config) -> Tensors:
    """AIMv2 without its last norm (aimv2.py)."""
    width = vision.positive("hidden_size")
    own = vision.flag("use_bias")
    block = Block(
        width,
        vision.positive("intermediate_size"),
        gated=True,
        rms=True,
        qkv_bias=vision.flag("qkv_bias"),
        out_bias=own,
        feed_bias=own,
    )
    return (
        *numbers(grid(vision), width),
        *patches(vision, width),
        *rms_norm(width),
        *times(block.tensors(), depth_of(vision)),
    )


def ovis(whole: Config) -> Towers:
    """Ovis 1.6 and 2: a tokenizer of images, and embeddings of its tokens (ovis.py)."""
    tokenizer = part(whole, "visual_tokenizer_config")
    vision = part(tokenizer, "backbone_config")
    rows = tokenizer.positive("vocab_size")
    columns = vision.positive("hidden_size") * tokenizer.positive("hidden_stride", default=1) ** 2
    names = rows - _OVIS_INDICATORS
    found = siglip(vision) if "siglip" in vision.model_type else aimv2(vision)
    tensors = (
        *found,
        *kept(max(1, names), columns, bias=False),
        *layer_norm(max(1, names)),
        *numbers(rows, text_width(whole)),
    )
    return seen(tensors, vision)


def hunyuan(whole: Config) -> Towers:
    """Hunyuan VL and OCR: SigLIP's blocks whole on every rank, patches merged by convolutions (Transformers' own)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width, merge = vision.positive("hidden_size"), vision.positive("spatial_merge_size", default=2) ** 2
    rows = (vision.positive("max_image_size", default=2048) // vision.positive("patch_size")) ** 2 + 1
    wide = 4 * width
    block = Block(width, vision.positive("intermediate_size")).tensors()
    tensors = (
        *patches(vision, width),
        *numbers(rows, width),
        *times(whole_on_ranks(block), depth_of(vision)),
        *kept_numbers(2 * width, width * merge),
        *kept_numbers(wide, 2 * width),
        *kept(hidden, wide),
        *numbers(wide),
        *numbers(3, hidden),
        *rms_norm(width),
        *rms_norm(hidden),
    )
    return seen(tensors, vision)


def muse_glimmer(whole: Config) -> Towers:
    """Muse Glimmer: attention divided, the rest whole on every rank (muse_glimmer.py)."""
    vision = part(whole, "vision_config")
    width, feed = vision.positive("hidden_size"), vision.positive("intermediate_size")
    heads = vision.positive("num_attention_heads")
    block = (
        *linear("vision.attn.qkv", 3 * width, width, Split.ROWS, bias=True, heads=heads),
        *linear("vision.attn.proj", width, width, Split.COLUMNS, bias=True, heads=heads),
        *perceptron(width, feed, width, split=False),
        *norms(2, width, bias=True),
    )
    adapter, columns = whole.positive("projector_hidden_size"), whole.positive("out_hidden_size")
    patch = 3 * vision.positive("patch_temporal") * vision.positive("patch_size") ** 2
    tensors = (
        *numbers(vision.positive("pos_emb_height") * vision.positive("pos_emb_width"), width),
        *kept(width, patch, bias=False),
        *layer_norm(width),
        *times(block, depth_of(vision)),
        *layer_norm(width),
        *kept(adapter, columns, bias=False),
        *kept(adapter, adapter, bias=False),
        *kept(text_width(whole), adapter, bias=False),
    )
    return seen(tensors, vision)


def minicpm_v4_6(whole: Config) -> Towers:
    """MiniCPM-V 4.6: SigLIP, a merger between its blocks and one after them (minicpmv4_6.py)."""
    return _minicpm(whole, depth_of(part(whole, "vision_config")) - (1 if whole.flag("drop_vision_last_layer") else 0))


def minicpm_v4_7(whole: Config) -> Towers:
    """MiniCPM-V 4.7 and MiniCPM-OCR (0.33): that of 4.6, with every block whatever the config says (minicpmv4_7.py)."""
    return _minicpm(whole, depth_of(part(whole, "vision_config")))


def _minicpm(whole: Config, layers: int) -> Towers:
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width = vision.positive("hidden_size")
    merge = _merge(whole, "merge_kernel_size")
    inner = width * _merge(vision, "window_kernel_size")
    merger = (
        *cut(3 * width, width),
        *linear("vision.attn.proj", width, width, Split.COLUMNS, bias=True),
        *layer_norm(width),
        *layer_norm(inner),
        *perceptron(inner, 4 * inner, width, split=False),
    )
    rounds = whole.positive("merger_times", default=1, largest=64)
    columns = width * merge
    last = (*layer_norm(columns), *perceptron(columns, columns, hidden, split=False))
    between = (*layer_norm(columns), *perceptron(columns, columns, width, split=False))
    tensors = (*siglip(vision, layers, post_norm=True), *merger, *times(between, rounds - 1), *last)
    return seen(tensors, vision)


def onevision2(whole: Config) -> Towers:
    """LLaVA-OneVision 2: no positions, patches merged (llava_onevision2.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    merged = width * _merge(vision, "spatial_merge_size")
    tensors = (
        *patches(vision, width, bias=False),
        *layer_norm(width),
        *encoder(vision),
        *layer_norm(width),
        *perceptron(merged, merged, text_width(whole)),
    )
    return seen(tensors, vision)


def molmo2(whole: Config) -> Towers:
    """Molmo 2: blocks up to the deepest features that are taken, pooled by attention, a gated projector (molmo2.py)."""
    vision, adapter = part(whole, "vit_config"), part(whole, "adapter_config")
    width, all_layers = vision.positive("hidden_size"), depth_of(vision)
    chosen = adapter.get("vit_layers")
    features = [c for c in chosen if isinstance(c, int)] if isinstance(chosen, list) else []
    layers = max((c + 1 if c >= 0 else all_layers + c + 1 for c in features), default=all_layers)
    size, wide = adapter.positive("head_dim"), width * max(1, len(features))
    heads, pairs = adapter.positive("num_attention_heads"), adapter.positive("num_key_value_heads")
    inner, feed = adapter.positive("hidden_size"), adapter.positive("intermediate_size")
    block = Block(width, vision.positive("intermediate_size"))
    tensors = (
        *numbers(vision.positive("image_num_pos"), width),
        *kept(width, 3 * vision.positive("image_patch_size", "patch_size") ** 2),
        *times(block.tensors(), min(layers, all_layers)),
        *cut(heads * size, wide),
        *cut(2 * pairs * size, wide),
        *joined(inner, heads * size),
        *cut(2 * feed, inner, bias=False),
        *joined(text_width(whole), feed, bias=False),
    )
    return seen(tensors, vision)


def ovis2_5(whole: Config) -> Towers:
    """Ovis 2.5 and 2.6: SigLIP 2, a head of visual tokens, and their embeddings (ovis2_5.py)."""
    vision = part(whole, "vit_config")
    rows = whole.positive("visual_vocab_size", default=65536)
    columns = vision.positive("hidden_size") * vision.positive("hidden_stride", default=1) ** 2
    names = max(1, rows - _OVIS2_5_INDICATORS)
    tensors = (
        *siglip(vision),
        *kept(names, columns, bias=False),
        *layer_norm(names),
        *numbers(rows, text_width(whole)),
    )
    return seen(tensors, vision)


def dots_ocr(whole: Config) -> Towers:
    """dots.ocr: AIMv2's blocks without positions, patches merged (dots_ocr.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("embed_dim", default=1536)
    bias = vision.flag("use_bias")
    block = Block(
        width,
        vision.positive("intermediate_size"),
        gated=True,
        rms=True,
        qkv_bias=bias,
        out_bias=bias,
        feed_bias=bias,
    )
    merged = width * _merge(vision, "spatial_merge_size")
    tensors = (
        *patches(vision, width),
        *rms_norm(width),
        *times(block.tensors(), depth_of(vision)),
        *(rms_norm(width) if vision.flag("post_norm", default=True) else ()),
        *layer_norm(width),
        *perceptron(merged, merged, vision.positive("hidden_size")),
    )
    return Towers(tensors, True, width, depth_of(vision))


def keye(whole: Config) -> Towers:
    """Keye-VL: SigLIP with a second table of positions, patches merged (keye.py)."""
    return _keye(whole, 1)


def keye1_5(whole: Config) -> Towers:
    """Keye-VL 1.5: the projector's norm is over merged patches (keye_vl1_5.py)."""
    return _keye(whole, _merge(part(whole, "vision_config"), "spatial_merge_size"))


def _keye(whole: Config, normed: int) -> Towers:
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    merged = width * _merge(vision, "spatial_merge_size")
    joins = (*layer_norm(width * normed), *perceptron(merged, merged, text_width(whole)))
    return seen((*siglip(vision), *numbers(_KEYE_PACKED_POSITIONS, width), *joins), vision)


def isaac(whole: Config) -> Towers:
    """Isaac: SigLIP 2, pixels shuffled, two projections without biases (isaac.py)."""
    vision = part(whole, "vision_config")
    side = vision.positive("pixel_shuffle_scale_factor", default=whole.positive("pixel_shuffle_scale", default=1))
    columns = vision.positive("hidden_size") * side * side
    return seen((*siglip2(vision), *perceptron(columns, 4 * columns, text_width(whole), bias=False)), vision)
