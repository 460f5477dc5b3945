"""dots3 note's towers: a vision transformer whose later blocks have experts, and an encoder of sound."""

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.families.parts import Tensors, plain
from vllm_doctor.memory.families.towers.blocks import (
    EVERY_MEDIUM,
    Towers,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    perceptron,
    rms_norm,
    times,
)

# The experts are turned into blocks of FP8 once they are loaded (0.32 models/dots3_note/nvidia/vision.py
# MoESwiGLUFFNFP8): a byte for every number of whole blocks, and a number in fp32 for every block.
_BLOCK = 128
_SCALE_BYTES = 4
# The encoder takes mel spectra of so many bins, whatever the config says (nvidia/audio_encoder.py DotsSpeechEncoder).
_MEL_BINS = 128


def dots_note(whole: Config) -> Towers:
    """Both towers where the config has them, whole on every rank (models/dots3_note/nvidia/multimodal.py)."""
    vision, audio = whole.section("vision_config"), whole.section("audio_config")
    tensors = (*(_vision(vision) if vision is not None else ()), *(_audio(audio) if audio is not None else ()))
    if vision is None:
        return Towers(tensors, audio is not None, media=("audio",))
    media = EVERY_MEDIUM if audio is not None else ("image", "video")
    return Towers(tensors, True, _width(vision), _depth(vision), media=media)


def _width(vision: Config) -> int:
    return vision.positive("embed_dim", default=1536)


def _depth(vision: Config) -> int:
    return vision.positive("num_hidden_layers", default=42, largest=LARGEST_LAYERS)


def _vision(vision: Config) -> Tensors:
    """Patches, blocks, a norm behind them, and what merges patches into tokens (nvidia/vision.py DotsMoEVitModel)."""
    width, layers = _width(vision), _depth(vision)
    patch = vision.positive("patch_size", default=14)
    size = width // vision.positive("num_attention_heads", default=24)
    bias = vision.flag("use_bias")
    block = (
        *kept(3 * width, width, bias=bias),
        *kept(width, width, bias=bias),
        *(times(rms_norm(size), 2) if vision.flag("use_qk_norm", default=True) else ()),
        *times(rms_norm(width), 2),
    )
    return (
        *kept_numbers(width, vision.positive("num_channels", default=3) * patch**2),
        *rms_norm(width),
        *times(block, layers),
        *_feeds(vision, width, layers),
        *(rms_norm(width) if vision.flag("post_norm", default=True) else ()),
        *_merger(vision),
    )


def _feeds(vision: Config, width: int, layers: int) -> Tensors:
    """Gated MLPs; in blocks that `pyramid_num_routed` has a number for, so many experts and a router in bfloat16."""
    bias, inner = vision.flag("use_bias"), vision.positive("moe_intermediate_size", default=2112)
    experts = [count for count in _pyramid(vision)[:layers] if count > 0]
    dense = layers - len(experts)
    feed = vision.positive("intermediate_size", default=4224)
    routed = _packed(width, inner) if vision.flag("enable_fp8_moe", default=True) else _gated(width, inner, bias=bias)
    return (
        *times(_gated(width, feed, bias=bias), dense),
        *times(routed, sum(experts)),
        *(t for count in experts for t in numbers(count, width)),
    )


def _pyramid(vision: Config) -> tuple[int, ...]:
    """Experts of every block; -1 (or 0) stands for a plain MLP."""
    listed = vision.get("pyramid_num_routed")
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > LARGEST_LAYERS or not all(type(n) is int for n in listed):
        raise ConfigError("pyramid_num_routed is no list of numbers")
    if any(n > LARGEST_EXPERTS for n in listed):
        raise ConfigError("pyramid_num_routed has more experts than any model")
    return tuple(listed)


def _gated(width: int, inner: int, *, bias: bool) -> Tensors:
    return (*times(kept(inner, width, bias=bias), 2), *kept(width, inner, bias=bias))


def _packed(width: int, inner: int) -> Tensors:
    """One expert's three matrices in FP8 blocks."""
    rows, columns = -(-inner // _BLOCK), -(-width // _BLOCK)
    padding = rows * columns * _BLOCK**2 - inner * width
    matrix = (
        plain("vision.experts", inner, width, element_bytes=1),
        *((plain("vision.experts.padding", padding, element_bytes=1, added=True),) if padding else ()),
        plain("vision.experts.scale", rows * columns, element_bytes=_SCALE_BYTES, added=True),
    )
    return times(matrix, 3)


def _merger(vision: Config) -> Tensors:
    width, out = vision.positive("adapter_in_dim", default=1536), vision.positive("adapter_out_dim", default=2048)
    merged = width * vision.positive("adapter_merge_size", default=2) ** 2
    if vision.text("adapter_type") == "patch_merger":
        return (*layer_norm(width), *perceptron(merged, merged, out, split=False))
    return (*layer_norm(merged), *perceptron(merged, out, out, split=False))


def _audio(audio: Config) -> Tensors:
    """Whisper's blocks behind convolutions, and two projections (nvidia/audio.py Dots3NoteAudioModel)."""
    section = audio.section("whisper_config") or Config({})
    encoder = Config({**section.values, "model_type": "whisper"})
    width, feed = encoder.positive("d_model"), encoder.positive("encoder_ffn_dim")
    layers = encoder.positive("encoder_layers", largest=LARGEST_LAYERS)
    gates = 2 if encoder.text("activation_function") == "swiglu" else 1
    normed = rms_norm(width) if audio.flag("use_rms_norm", default=True) else layer_norm(width)
    block = (
        *times(kept(width, width), 3),
        *kept(width, width, bias=False),
        *kept(gates * feed, width),
        *kept(width, feed),
        *times(normed, 2),
    )
    inner = audio.positive("whisper_adapter_in_dim", "adapter_in_dim", default=1280)
    out = audio.positive("whisper_adapter_out_dim", "adapter_out_dim", default=2048)
    positions = () if audio.flag("use_rope", default=True) else numbers(encoder.positive("max_source_positions"), width)
    return (
        *layer_norm(inner),
        *perceptron(inner, out, out, split=False),
        *_stem(audio, encoder, width),
        *positions,
        *times(block, layers),
        *normed,
    )


def _stem(audio: Config, encoder: Config, width: int) -> Tensors:
    """Three convolutions over both directions, or two over time."""
    if not audio.flag("use_conv2d_stem", default=True):
        is_latent = encoder.flag("use_latent_input")
        bins = encoder.positive("latent_dim") if is_latent else _MEL_BINS
        return (*kept_numbers(2 * width if is_latent else width, bins * 3), *kept_numbers(width, width * 3))
    channels = audio.positive("downsample_hidden_size", default=480)
    bins = _MEL_BINS
    for _ in range(3):
        bins = (bins + 1) // 2
    return (
        *kept_numbers(channels, 9),
        *times(kept_numbers(channels, channels * 9), 2),
        *kept(width, channels * bins, bias=False),
    )
