"""The towers of DeepSeek-VL2 and DeepSeek-OCR, whose sizes their names say (deepseek_vl2.py, deepencoder.py)."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config
from vllm_doctor.memory.facts import Split
from vllm_doctor.memory.families.parts import Tensors, linear, plain
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    Towers,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    part,
    perceptron,
    rms_norm,
    text_width,
    times,
    whole_on_ranks,
)
from vllm_doctor.memory.families.towers.vits import clip

# timm's vit_so400m_patch14_siglip_384, of which ranks divide the MLPs only.
_WIDTH, _FEED, _LAYERS, _POSITIONS, _PATCH = 1152, 4304, 27, 729, 588
# The small model of SAM: every third block looks at the whole image, the others at 14 x 14 patches (deepencoder.py).
_SAM, _SAM_LAYERS, _SAM_GLOBAL, _SAM_HEAD, _SAM_SIDE, _SAM_WINDOW, _SAM_NECK = 768, 12, 4, 64, 64, 14, 256
# CLIP-L at 224 pixels (deepencoder.py DeepCLIPVisionTransformer).
_CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "image_size": 224, "patch_size": 14}
# Qwen2-0.5B as an encoder (deepencoder2.py).
_QWEN, _QWEN_FEED, _QWEN_LAYERS, _QWEN_PAIRS, _QWEN_QUERIES = 896, 4864, 24, 256, 144 + 256


def vl2(whole: Config) -> Towers:
    """DeepSeek-VL2: timm's SigLIP with its pooling head, pixels unshuffled, a projector (deepseek_vl2.py)."""
    projector = part(whole, "projector_config")
    hidden = projector.positive("n_embed", default=2048)
    side = projector.positive("downsample_ratio", default=2)
    inner = hidden * projector.positive("mlp_ratio", default=1)
    attending = (*kept(3 * _WIDTH, _WIDTH), *kept(_WIDTH, _WIDTH))
    feeding = perceptron(_WIDTH, _FEED, _WIDTH)
    block = (*attending, *feeding, *times(layer_norm(_WIDTH), 2))
    tensors = (
        *numbers(_POSITIONS, _WIDTH),
        *kept_numbers(_WIDTH, _PATCH),
        *times(block, _LAYERS),
        *layer_norm(_WIDTH),
        *numbers(_WIDTH),
        *attending,
        *layer_norm(_WIDTH),
        *feeding,
        *perceptron(_WIDTH * side * side, inner, hidden, split=False),
        *numbers(2, hidden),
    )
    return Towers(tensors, True, _WIDTH, _LAYERS)


def _sam(out: int) -> Tensors:
    block = whole_on_ranks(Block(_SAM, 4 * _SAM).tensors())
    local = 2 * (2 * _SAM_WINDOW - 1)
    everywhere = 2 * (2 * _SAM_SIDE - 1)
    return (
        *numbers(_SAM_SIDE * _SAM_SIDE, _SAM),
        *kept_numbers(_SAM, 3 * 16 * 16),
        *times(block, _SAM_LAYERS),
        *times(numbers(local, _SAM_HEAD), _SAM_LAYERS - _SAM_GLOBAL),
        *times(numbers(everywhere, _SAM_HEAD), _SAM_GLOBAL),
        *numbers(_SAM_NECK, _SAM),
        *numbers(_SAM_NECK, _SAM_NECK * 9),
        *times(layer_norm(_SAM_NECK), 2),
        *numbers(2 * _SAM_NECK, _SAM_NECK * 9),
        *numbers(out, 2 * _SAM_NECK * 9),
    )


def _projection(whole: Config) -> Tensors:
    projector = part(whole, "projector_config")
    return kept(projector.positive("n_embed"), projector.positive("input_dim"))


def ocr(whole: Config) -> Towers:
    """DeepSeek-OCR: SAM, CLIP over its features, one projection (deepseek_ocr.py)."""
    hidden = text_width(whole)
    seen = (*_sam(_CLIP["hidden_size"]), *clip(Config(_CLIP), post_norm=False))
    return Towers(
        (*seen, *_projection(whole), *numbers(2, hidden)), True, _CLIP["hidden_size"], _CLIP["num_hidden_layers"]
    )


def ocr2(whole: Config) -> Towers:
    """DeepSeek-OCR 2: SAM, Qwen2 with learned queries over its features, one projection (deepseek_ocr2.py)."""
    block = (
        *kept(_QWEN, _QWEN),
        *kept(_QWEN_PAIRS, _QWEN),
        *kept(_QWEN, _QWEN, bias=False),
        *kept(3 * _QWEN_FEED, _QWEN, bias=False),
        *times(rms_norm(_QWEN), 2),
    )
    tensors = (
        *_sam(_QWEN),
        *times(block, _QWEN_LAYERS),
        *rms_norm(_QWEN),
        *numbers(_QWEN_QUERIES, _QWEN),
        *_projection(whole),
        *numbers(text_width(whole)),
    )
    return Towers(tensors, True, _QWEN, _QWEN_LAYERS)


def step3(whole: Config) -> Towers:
    """Step-3: CLIP's blocks without outer norms, two convolutions that make fewer patches (step3_vl.py)."""
    vision = part(whole, "vision_config")
    width, feed, out = (vision.positive(k) for k in ("hidden_size", "intermediate_size", "output_hidden_size"))
    layers = vision.positive("num_hidden_layers", largest=2048)
    places = (vision.positive("image_size") // vision.positive("patch_size")) ** 2 + 1
    tensors = (
        *numbers(width),
        *kept_numbers(width, 3 * vision.positive("patch_size") ** 2),
        *numbers(places, width),
        *times(Block(width, feed).tensors(), layers),
        *kept_numbers(out, width * whole.positive("understand_projector_stride", default=2) ** 2),
        *kept_numbers(2 * out, out * 9),
        *kept(text_width(whole), 2 * out, bias=whole.flag("projector_bias")),
    )
    return Towers(tensors, True, width, layers)


def v4(whole: Config) -> Towers:
    """DeepSeek V4's vision: its numbers stand beside the language model's (0.32 deepseek_v4/common/vision.py)."""
    layers = whole.positive("vision_n_layers", largest=LARGEST_LAYERS)
    widths = (whole.positive("vision_dim", default=1024), whole.positive("vision_inter_dim", default=2816))
    heads, patch = whole.positive("vision_n_heads", default=16), whole.positive("vision_patch_size", default=14)
    side, hidden = whole.positive("vision_downsample_ratio", default=3), whole.positive("hidden_size")
    # The ends of an image and of its rows, and what it is filled up with.
    marks = (plain("image_start", 4, hidden, element_bytes=4),)
    return _v4_tower(widths, layers, heads, patch, side, hidden, marks)


def v4_1(whole: Config) -> Towers:
    """DeepSeek V4.1's: V4's tower under keys of its own (deepseek_v41/nvidia/vl_model.py, configs/deepseek_v41.py)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    widths = (vision.positive("hidden_size", default=1024), vision.positive("intermediate_size", default=2816))
    return _v4_tower(
        widths,
        vision.positive("num_hidden_layers", largest=LARGEST_LAYERS),
        vision.positive("num_attention_heads", default=16),
        vision.positive("patch_size", default=14),
        vision.positive("downsample_ratio", default=3),
        hidden,
        (plain("image_start", 3, hidden, element_bytes=4),),
    )


def _v4_tower(
    widths: tuple[int, int], layers: int, heads: int, patch: int, side: int, hidden: int, marks: Tensors
) -> Towers:
    """Blocks with gated MLPs; all of it is whole on every rank where the ranks do not divide the heads."""
    width, feed = widths
    block = (
        *linear("vision.attn.wqkv", 3 * width, width, Split.ROWS, bias=True),
        *linear("vision.attn.wo", width, width, Split.COLUMNS, bias=True),
        *linear("vision.mlp.w1", 2 * feed, width, Split.ROWS),
        *linear("vision.mlp.w2", width, feed, Split.COLUMNS),
        *times(rms_norm(width), 2),
    )
    aligner = (
        *linear("aligner.w1", hidden, width * side * side, Split.ROWS, bias=True),
        *linear("aligner.w2", hidden, hidden, Split.COLUMNS, bias=True),
    )
    divided = tuple(replace(t, heads=heads) for t in (*times(block, layers), *aligner))
    tensors = (*divided, *kept_numbers(width, 3 * patch**2), *rms_norm(width), *marks)
    return Towers(tensors, True, width, layers, media=("image",))
