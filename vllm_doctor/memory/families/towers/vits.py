"""The encoders that many models share: CLIP, SigLIP, Pixtral, BLIP, Whisper, Q-Former (vLLM 0.32, models/*.py)."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Split
from vllm_doctor.memory.families.encoder_decoder import audio_encoder, audio_layer
from vllm_doctor.memory.families.parts import Tensors, linear
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    depth_of,
    grid,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    patches,
    perceptron,
    rms_norm,
    times,
    whole_on_ranks,
)


def encoder(vision: Config, layers: int | None = None) -> Tensors:
    """The blocks of a plain vision transformer."""
    block = Block(vision.positive("hidden_size"), vision.positive("intermediate_size"))
    return times(block.tensors(), depth_of(vision) if layers is None else layers)


def feature_layers(whole: Config, vision: Config, *keys: str, default: int = -2) -> int:
    """How many blocks are built: up to the layer whose features are taken (llava.py _get_num_hidden_layers)."""
    layers = depth_of(vision)
    chosen = [default]
    for key in keys or ("vision_feature_layer",):
        value = whole.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            chosen = [value]
            break
        if isinstance(value, list) and all(isinstance(v, int) for v in value) and value:
            chosen = value
            break
    built = max(layers + c + 1 if c < 0 else c for c in chosen)
    if built < 0:
        raise ConfigError(f"vision_feature_layer {chosen} lies before the first of {layers} layers")
    return min(layers, built)


def siglip(
    vision: Config, layers: int | None = None, *, post_norm: bool | None = None, head: bool = False, rows: int = 0
) -> Tensors:
    """SigLIP (siglip.py); `rows` of positions where they are not the image's; the last norm only with all layers."""
    width, feed = vision.positive("hidden_size"), vision.positive("intermediate_size")
    all_layers = layers is None or layers == depth_of(vision)
    return (
        *patches(vision, width),
        *numbers(rows or grid(vision), width),
        *encoder(vision, layers),
        *(layer_norm(width) if (all_layers if post_norm is None else post_norm) else ()),
        *(pooling_head(width, feed) if head else ()),
    )


def pooling_head(width: int, feed: int) -> Tensors:
    """SigLIP's head: one query that attends to all patches."""
    return (
        *numbers(width),
        *kept(3 * width, width),
        *kept(width, width),
        *layer_norm(width),
        *perceptron(width, feed, width),
    )


def clip(vision: Config, layers: int | None = None, *, post_norm: bool | None = None) -> Tensors:
    """CLIP's image side (clip.py)."""
    width = vision.positive("hidden_size")
    all_layers = layers is None or layers == depth_of(vision)
    return (
        *numbers(width),
        *patches(vision, width, bias=False),
        *numbers(grid(vision) + 1, width),
        *layer_norm(width),
        *encoder(vision, layers),
        *(layer_norm(width) if (all_layers if post_norm is None else post_norm) else ()),
    )


def pixtral(vision: Config, layers: int | None = None) -> Tensors:
    """Pixtral's encoder (pixtral.py PixtralHFVisionModel)."""
    width = vision.positive("hidden_size")
    block = Block(
        width, vision.positive("intermediate_size"), True, True, qkv_bias=False, out_bias=False, feed_bias=False
    )
    return (
        *patches(vision, width, bias=False),
        *rms_norm(width),
        *times(block.tensors(), depth_of(vision) if layers is None else layers),
    )


def blip(vision: Config, layers: int | None = None, *, post_norm: bool = True) -> Tensors:
    """BLIP's image side (blip.py)."""
    width = vision.positive("hidden_size")
    return (
        *numbers(width),
        *numbers(grid(vision) + 1, width),
        *patches(vision, width),
        *encoder(vision, layers),
        *(layer_norm(width) if post_norm else ()),
    )


def whisper(audio: Config) -> Tensors:
    """Whisper's encoder as vLLM builds it (whisper.py)."""
    return audio_encoder(audio)


def whisper_layer(audio: Config) -> Tensors:
    """One of its layers."""
    return audio_layer(audio)


def whole_whisper(audio: Config, *, positions: bool = True) -> Tensors:
    """Transformers' own copies of Whisper's encoder; without `positions` they are computed, not stored."""
    own = whole_on_ranks(audio_encoder(audio))
    return own if positions else tuple(t for t in own if t.name != "encoder.embed_positions")


def q_former(config: Config) -> Tensors:
    """BLIP-2's Q-Former, whole on every rank but its projections are not (blip2.py Blip2QFormerModel)."""
    width, feed = config.positive("hidden_size"), config.positive("intermediate_size")
    layers, every = depth_of(config), config.positive("cross_attention_frequency", default=2)
    outer = config.positive("encoder_hidden_size", default=1408)
    crossing = -(-layers // every)
    own = (*kept(3 * width, width), *kept(width, width), *layer_norm(width))
    cross = (*kept(width, width), *kept(2 * width, outer), *kept(width, width), *layer_norm(width))
    feeding = (*kept(feed, width), *kept(width, feed), *layer_norm(width))
    return (*layer_norm(width), *times((*own, *feeding), layers), *times(cross, crossing))


def conformer_convolutions(width: int, mels: int) -> Tensors:
    """The two convolutions at the start of Whisper-like encoders."""
    return (*kept_numbers(width, mels * 3), *kept_numbers(width, width * 3))


def query_linear(rows: int, columns: int) -> Tensors:
    """A projection that no rank divides and that has no bias."""
    return tuple(replace(t, split=Split.WHOLE) for t in linear("vision.linear", rows, columns, Split.WHOLE))
