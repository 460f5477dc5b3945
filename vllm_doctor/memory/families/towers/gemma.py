"""The towers of Gemma 3n and Gemma 4, which are Transformers' own modules: whole on every rank."""

from collections.abc import Mapping

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors, embedding
from vllm_doctor.memory.families.towers.blocks import (
    EVERY_MEDIUM,
    Block,
    MissingPart,
    Towers,
    cut,
    depth_of,
    joined,
    kept,
    layer_norm,
    numbers,
    part,
    rms_norm,
    text_of,
    text_width,
    times,
    whole_on_ranks,
)

# Mel bins of every Gemma, halved twice by the two convolutions (gemma3n_mm.py, gemma4_mm.py).
_HALVED_MELS = 32
# timm's networks by name and the elements of their parameters: one network, whose sizes no config moves.
_TIMM: Mapping[str, int] = {"mobilenetv5_300m_enc": 294_126_912}


def _conformer(audio: Config, layers: int, heads: int, kernel: int, channels: tuple[int, ...]) -> Tensors:
    """Gemma's audio encoder: two convolutions, then blocks of attention between two MLPs, and a convolution."""
    width = audio.positive("hidden_size")
    if len(channels) != 2:
        raise MissingPart("the channels of the convolutions are missing")
    outer, inner = channels
    block = (
        *kept(8 * width, width, bias=False),
        *kept(width, 8 * width, bias=False),
        *kept(5 * width, width, bias=False),
        *numbers(width // heads),
        *kept(3 * width, width, bias=False),
        *numbers(width, kernel),
        *numbers(9, width),
    )
    return (
        *numbers(outer, 9),
        *numbers(outer),
        *numbers(inner, outer * 9),
        *numbers(inner),
        *kept(width, inner * _HALVED_MELS, bias=False),
        *times(block, layers),
    )


def gemma4(whole: Config) -> Towers:
    """Gemma 4: a vision transformer, in some sizes an audio encoder, one projection each (gemma4_mm.py)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width, layers = vision.positive("hidden_size"), depth_of(vision)
    heads, size = vision.positive("num_attention_heads"), vision.positive("head_dim")
    block = Block(
        width,
        vision.positive("intermediate_size"),
        gated=True,
        rms=True,
        qkv_bias=False,
        out_bias=False,
        feed_bias=False,
        query_key_norm=size,
        norms=4,
        heads_size=heads * size,
        key_values=(vision.positive("num_key_value_heads", default=heads), size),
    )
    tensors = (
        *numbers(2, vision.positive("position_embedding_size") * width),
        *kept(width, 3 * vision.positive("patch_size") ** 2, bias=False),
        *times(whole_on_ranks(block.tensors()), layers),
        *kept(hidden, width, bias=False),
    )
    return Towers((*tensors, *_gemma4_audio(whole, hidden)), True, width, layers, media=EVERY_MEDIUM)


def _gemma4_audio(whole: Config, hidden: int) -> Tensors:
    audio = whole.section("audio_config")
    if audio is None:
        return ()
    width, out = audio.positive("hidden_size"), audio.positive("output_proj_dims")
    channels = audio.counts("subsampling_conv_channels")
    kernel, heads = audio.positive("conv_kernel_size"), audio.positive("num_attention_heads")
    return (
        *_conformer(audio, depth_of(audio), heads, kernel, channels),
        *kept(out, width),
        *kept(hidden, out, bias=False),
    )


def diffusion(whole: Config) -> Towers:
    """DiffusionGemma: Gemma 4's tower, and an MLP for what it wrote before (diffusion_gemma.py)."""
    base, hidden = gemma4(whole), text_width(whole)
    feed = text_of(whole).positive("intermediate_size")
    conditioning = (
        *rms_norm(hidden),
        *kept(2 * feed, hidden, bias=False),
        *kept(hidden, feed, bias=False),
    )
    return base._replace(tensors=(*base.tensors, *conditioning), media=("image", "video"))


def gemma4_unified(whole: Config) -> Towers:
    """Gemma 4 without towers: patches and sounds go through one projection each (gemma4_unified.py)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width, side = (
        vision.positive("mm_embed_dim"),
        vision.positive("patch_size") * vision.positive("pooling_kernel_size"),
    )
    patch = 3 * side * side
    tensors = (
        *numbers(vision.positive("mm_posemb_size"), 2 * width),
        *layer_norm(patch),
        *cut(width, patch),
        *layer_norm(width),
        *layer_norm(width),
        *kept(hidden, vision.positive("output_proj_dims", default=width), bias=False),
    )
    audio = whole.section("audio_config")
    heard = kept(hidden, audio.positive("audio_embed_dim"), bias=False) if audio is not None else ()
    return Towers((*tensors, *heard), True, width, 0)


def gemma3n(whole: Config) -> Towers:
    """Gemma 3n: a MobileNet by name, an audio encoder, and embeddings of their own tokens (gemma3n_mm.py)."""
    vision, audio, hidden = part(whole, "vision_config"), part(whole, "audio_config"), text_width(whole)
    name = vision.text("architecture") or ""
    network = _TIMM.get(name)
    doubts = () if network is not None else (f"the vision tower ({name[:40]}) is not counted",)
    heads, kernel = audio.positive("conf_num_attention_heads"), audio.positive("conf_conv_kernel_size")
    layers, channels = audio.positive("conf_num_hidden_layers", largest=2048), audio.counts("sscp_conv_channel_size")
    tensors = (
        *(numbers(network) if network is not None else ()),
        *_embedder(vision, hidden),
        *_conformer(audio, layers, heads, kernel, channels),
        *_embedder(audio, hidden),
    )
    return Towers(tensors, True, vision.positive("hidden_size"), 0, doubts, EVERY_MEDIUM)


def _embedder(config: Config, hidden: int) -> Tensors:
    width = config.positive("hidden_size")
    table = embedding(config.positive("vocab_size"), width, "vision.embedding")
    return (table, *rms_norm(width), *rms_norm(width), *joined(hidden, width, bias=False))
