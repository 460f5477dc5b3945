"""The towers of DeepSeek-VL2 and DeepSeek-OCR, whose sizes their names say (deepseek_vl2.py, deepencoder.py)."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors
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
