"""The towers of Phi-3-vision and of Molmo, which have CLIP's numbers whatever the config says."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors, embedding
from vllm_doctor.memory.families.towers.blocks import (
    EVERY_MEDIUM,
    Block,
    Towers,
    cut,
    joined,
    kept,
    layer_norm,
    numbers,
    part,
    perceptron,
    times,
)
from vllm_doctor.memory.families.towers.vits import clip, siglip

# CLIP ViT-L/14 at 336 pixels (phi3v.py CLIP_VIT_LARGE_PATCH14_336_CONFIG).
_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "image_size": 336,
    "patch_size": 14,
}
_CLIP_WIDTH, _CLIP_FEED, _CLIP_LAYERS, _CLIP_POSITIONS = 1024, 4096, 23, 577
# Molmo takes the features of two blocks (molmo.py VIT_LAYERS).
_MOLMO_FEATURES = 2


def phi3_vision(whole: Config) -> Towers:
    """Phi-3-vision, Phi-3.5-vision: CLIP but its last block, and an embedding beside the model's own (phi3v.py)."""
    processor = part(whole, "img_processor")
    hidden, out = whole.positive("hidden_size"), processor.positive("image_dim_out")
    tensors = (
        embedding(whole.positive("vocab_size"), hidden),
        *clip(Config(_CLIP), _CLIP_LAYERS),
        *numbers(2, 4 * out),
        *perceptron(4 * out, hidden, hidden, split=False),
    )
    return Towers(tensors, True, _CLIP_WIDTH, _CLIP_LAYERS)


# SigLIP at 448 pixels, but its last block (phi4mm.py, vision_siglip_navit.py).
_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "image_size": 448,
    "patch_size": 14,
}
_SIGLIP_WIDTH, _SIGLIP_LAYERS = 1152, 26


def phi4_multimodal(whole: Config) -> Towers:
    """Phi-4-multimodal: SigLIP, a conformer, projections of what is heard with and without images (phi4mm.py)."""
    hidden = whole.positive("hidden_size")
    project = (*kept(hidden, hidden),)
    processor = part(whole, "audio_processor")
    audio = part(processor, "config")
    width = audio.positive("attention_dim")
    tensors = (
        *numbers(2, _SIGLIP_WIDTH),
        *siglip(Config(_SIGLIP), _SIGLIP_LAYERS, post_norm=False),
        *kept(hidden, _SIGLIP_WIDTH),
        *project,
        *_conformer(audio, width),
        *times((*kept(hidden, width), *project), 2),
    )
    return Towers(tensors, True, _SIGLIP_WIDTH, _SIGLIP_LAYERS, media=EVERY_MEDIUM)


def _conformer(audio: Config, width: int) -> Tensors:
    """Blocks of attention between two gated MLPs, and a convolution (phi4mm_audio.py)."""
    feed, mels = audio.positive("linear_units"), audio.positive("input_size")
    halved = -(-mels // audio.positive("time_reduction", default=8))
    channels = part(audio, "nemo_conv_settings").positive("conv_channels")
    bias = part(audio, "relative_attention_bias_args").positive("t5_bias_max_distance")
    kernel = audio.positive("kernel_size")
    feeding = (*layer_norm(width), *kept(2 * feed, width), *kept(width, feed))
    block = (
        *times(feeding, 2),
        *times(kept(width, width), 4),
        *numbers(2, width),
        *kept(2 * width, width),
        *kept(width, width),
        *kept(width, kernel),
        *kept(width, width),
        *times(layer_norm(width), 3),
    )
    stem = (
        *kept(channels, 9),
        *times((*kept(channels, 9), *kept(channels, channels)), 2),
        *kept(width, channels * halved),
        *numbers(2 * bias, audio.positive("attention_heads")),
        *numbers(2, mels),
    )
    return (*stem, *times(block, audio.positive("num_blocks", largest=2048)))


def molmo(whole: Config) -> Towers:
    """Molmo: CLIP's blocks, pooled by attention over four patches, a gated projector (molmo.py)."""
    hidden = whole.positive("hidden_size")
    inner = whole.positive("intermediate_size")
    wide = _CLIP_WIDTH * _MOLMO_FEATURES
    tensors = (
        *numbers(_MOLMO_FEATURES, wide),
        *numbers(_CLIP_WIDTH),
        *numbers(_CLIP_POSITIONS, _CLIP_WIDTH),
        *kept(_CLIP_WIDTH, 588, bias=False),
        *layer_norm(_CLIP_WIDTH),
        *times(Block(_CLIP_WIDTH, _CLIP_FEED).tensors(), _CLIP_LAYERS),
        *cut(3 * _CLIP_WIDTH, wide),
        *joined(_CLIP_WIDTH, _CLIP_WIDTH),
        *cut(inner, _CLIP_WIDTH, bias=False),
        *joined(hidden, inner // 2, bias=False),
    )
    return Towers(tensors, True, _CLIP_WIDTH, _CLIP_LAYERS)
