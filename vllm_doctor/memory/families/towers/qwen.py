"""The vision transformers of Qwen-VL, which see patches of two frames and merge them, and models built on them."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.blocks import (
    EVERY_MEDIUM,
    Block,
    Towers,
    cut,
    depth_of,
    fp32,
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
)
from vllm_doctor.memory.families.towers.vits import whole_whisper


def qwen2(vision: Config) -> Tensors:
    """Qwen2-VL: hidden_size is the width that it hands on (qwen2_vl.py)."""
    width, out = vision.positive("embed_dim", default=1280), vision.positive("hidden_size")
    return (*qwen2_blocks(vision), *layer_norm(width), *merger(width, out, vision))


def qwen2_blocks(vision: Config) -> Tensors:
    """Patches of two frames, and its blocks."""
    width = vision.positive("embed_dim", default=1280)
    feed = int(vision.number("mlp_ratio", 4.0) * width)
    return (
        *patches(vision, width, vision.positive("temporal_patch_size", default=2), bias=False),
        *times(Block(width, feed).tensors(), depth_of(vision)),
    )


def merger(width: int, out: int, vision: Config) -> Tensors:
    """The MLP that joins the patches of a square into one token."""
    merged = width * vision.positive("spatial_merge_size", default=2) ** 2
    return perceptron(merged, merged, out)


def qwen2_5(vision: Config, heads: tuple[int, int] | None = None) -> Tensors:
    """Qwen2.5-VL: gated, with norms that have no bias (qwen2_5_vl.py); `heads`: key-value heads and their size."""
    width = vision.positive("hidden_size")
    feed = vision.positive("intermediate_size", default=int(vision.number("mlp_ratio", 4.0) * width))
    block = Block(width, feed, True, True, key_values=heads)
    return (
        *patches(vision, width, vision.positive("temporal_patch_size", default=2), bias=False),
        *times(block.tensors(), depth_of(vision)),
        *rms_norm(width),
        *merger(width, vision.positive("out_hidden_size"), vision),
    )


def qwen3(vision: Config) -> Tensors:
    """Qwen3-VL, Qwen3.5: learned positions, and mergers after chosen layers (qwen3_vl.py)."""
    width, out = vision.positive("hidden_size"), vision.positive("out_hidden_size")
    merged = width * vision.positive("spatial_merge_size", default=2) ** 2
    deep = (*layer_norm(merged), *merger(width, out, vision))
    return (
        *qwen3_blocks(vision),
        *merger(width, out, vision),
        *times(deep, len(vision.counts("deepstack_visual_indexes"))),
    )


def qwen3_blocks(vision: Config) -> Tensors:
    """Patches of two frames, learned positions, its blocks and the norm of the merger."""
    width, positions = vision.positive("hidden_size"), vision.count("num_position_embeddings", default=0)
    return (
        *patches(vision, width, vision.positive("temporal_patch_size", default=2)),
        *(numbers(positions, width) if positions else ()),
        *times(Block(width, vision.positive("intermediate_size")).tensors(), depth_of(vision)),
        *layer_norm(width),
    )


_AS_QWEN3 = ("qwen3", "cosmos3", "qwen4", "cohere_compass", "colqwen3", "ops_colqwen3", "interns1_pro")


def vit(vision: Config) -> Tensors:
    """The tower by its type."""
    if vision.model_type.startswith(_AS_QWEN3):
        return qwen3(vision)
    return qwen2_5(vision) if vision.model_type.startswith("qwen2_5") else qwen2(vision)


def _width(vision: Config) -> int:
    return vision.positive("embed_dim", "hidden_size")


def qwen_vl(whole: Config) -> Towers:
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5."""
    vision = part(whole, "vision_config")
    typed = vision if vision.model_type else Config(vision.values, whole.model_type, whole.values)
    return Towers(vit(typed), True, _width(vision), depth_of(vision))


def exaone4_5(whole: Config) -> Towers:
    """EXAONE 4.5: Qwen2.5-VL's tower with fewer key-value heads (exaone4_5.py)."""
    vision = part(whole, "vision_config")
    heads = vision.positive("num_heads", "num_attention_heads")
    size = vision.positive("hidden_size") // heads
    tensors = qwen2_5(vision, (vision.positive("num_key_value_heads", default=heads), size))
    return Towers(tensors, True, _width(vision), depth_of(vision))


def hyperclovax(whole: Config) -> Towers:
    """HyperCLOVA X Vision 2: Qwen2.5-VL's tower and one projection (hyperclovax_vision_v2.py)."""
    vision = part(whole, "vision_config")
    joins = kept(text_width(whole), vision.positive("out_hidden_size"))
    return Towers((*qwen2_5(vision), *joins), True, _width(vision), depth_of(vision))


def thinker_of(whole: Config) -> Config:
    """The thinker is all that vLLM serves of an omni model; the talker stays in the checkpoint."""
    return whole.section("thinker_config") or whole


def qwen2_5_omni(whole: Config) -> Towers:
    """Qwen2.5-Omni: the vision tower, and Whisper's encoder without positions (qwen2_5_omni_thinker.py)."""
    thinker = thinker_of(whole)
    vision, audio = part(thinker, "vision_config"), part(thinker, "audio_config")
    width, out = audio.positive("d_model"), audio.positive("output_dim")
    heard = (
        *whole_whisper(audio, positions=False),
        *numbers(2, out),
        *kept(out, width),
    )
    return Towers((*qwen2_5(vision), *heard), True, _width(vision), depth_of(vision), media=EVERY_MEDIUM)


def audio_transformer(audio: Config) -> Tensors:
    """Qwen3-ASR's and Qwen3-Omni's encoder: three convolutions over time and mels (qwen3_asr.py)."""
    width, feed = audio.positive("d_model"), audio.positive("encoder_ffn_dim")
    channels, mels = audio.positive("downsample_hidden_size"), audio.positive("num_mel_bins")
    rows = channels * ((((mels + 1) // 2 + 1) // 2 + 1) // 2)
    return (
        *kept_numbers(channels, 9),
        *kept_numbers(channels, channels * 9),
        *kept_numbers(channels, channels * 9),
        *kept(width, rows, bias=False),
        *times(Block(width, feed).tensors(), depth_of(audio)),
        *layer_norm(width),
        *kept(width, width),
        *kept(audio.positive("output_dim"), width),
    )


def qwen3_asr(whole: Config) -> Towers:
    """Qwen3-ASR (qwen3_asr.py)."""
    return Towers(audio_transformer(part(thinker_of(whole), "audio_config")), True, media=("audio",))


def qwen3_omni(whole: Config) -> Towers:
    """Qwen3-Omni's thinker (qwen3_omni_moe_thinker.py)."""
    thinker = thinker_of(whole)
    vision, audio = part(thinker, "vision_config"), part(thinker, "audio_config")
    tensors = (*qwen3(vision), *audio_transformer(audio))
    return Towers(tensors, True, _width(vision), depth_of(vision), media=EVERY_MEDIUM)


def ranking(whole: Config) -> Towers:
    """Jina's ranker: Qwen2-VL's tower, and a score of two layers in fp32 (jina_vl.py)."""
    base, hidden = qwen_vl(whole), text_width(whole)
    score = fp32(perceptron(hidden, hidden, whole.positive("num_labels", default=1)))
    return base._replace(tensors=(*base.tensors, *score))


def ernie(whole: Config) -> Towers:
    """ERNIE 4.5 VL: Qwen2-VL's blocks, and a resampler over space and time (ernie45_vl.py)."""
    vision = part(whole, "vision_config")
    width, hidden = vision.positive("embed_dim", "hidden_size"), text_width(whole)
    feed = int(vision.number("mlp_ratio", 4.0) * width)
    wide = whole.positive("pixel_hidden_size") * whole.positive("spatial_conv_size", default=2) ** 2
    frames = whole.positive("temporal_conv_size", default=2)
    over_time = (*cut(wide, wide * frames), *cut(wide, wide), *layer_norm(wide))
    tensors = (
        *patches(vision, width, bias=False),
        *times(Block(width, feed).tensors(), depth_of(vision)),
        *layer_norm(width),
        *times(cut(wide, wide), 2),
        *layer_norm(wide),
        *(over_time if whole.flag("use_temporal_conv", default=True) else ()),
        *cut(hidden, wide),
        *rms_norm(hidden),
    )
    return Towers(tensors, True, width, depth_of(vision))


def mimo(whole: Config) -> Towers:
    """MiMo-V2-Omni: Qwen2.5-VL's tower with fewer key-value heads, sinks in layers with windows (mimo_v2_omni.py)."""
    vision = part(whole, "vision_config")
    width, layers = vision.positive("hidden_size"), depth_of(vision)
    heads, size = vision.positive("num_heads"), vision.positive("qk_channels", default=64)
    pairs = vision.positive("num_key_value_heads", default=heads)
    block = Block(
        width,
        vision.positive("intermediate_size"),
        gated=True,
        rms=True,
        heads_size=heads * size,
        key_values=(pairs, size),
    )
    windowed = layers - len(set(vision.counts("fullatt_block_indexes")) & set(range(layers)))
    merged = width * vision.positive("spatial_merge_size", default=2) ** 2
    tensors = (
        *patches(vision, width, vision.positive("temporal_patch_size", default=2), bias=False),
        *times(block.tensors(), layers),
        *(times(numbers(heads), windowed) if vision.flag("use_sink") else ()),
        *rms_norm(width),
        *perceptron(merged, merged, vision.positive("out_hidden_size"), bias=False),
    )
    heard = whole.section("audio_config") is not None
    return Towers(tensors, True, width, layers, ("the audio tower is not counted",) if heard else (), EVERY_MEDIUM)


def opencua(whole: Config) -> Towers:
    """OpenCUA: Qwen2.5-VL's tower (opencua.py)."""
    vision = part(whole, "vision_config")
    return Towers(qwen2_5(vision), True, _width(vision), depth_of(vision))


def colqwen(whole: Config) -> Towers:
    """ColQwen3 and its kin: Qwen's tower, and a projection of the states that is kept in fp32 (colqwen3.py)."""
    base = qwen_vl(whole)
    rows = whole.optional("embed_dim", "dims", "dim", "projection_dim", "colbert_dim")
    if whole.text("retrieval_attention_contract") == "bidirectional":
        base = base._replace(doubts=("attention that looks both ways keeps no cache, which is not taken off",))
    if not rows:
        return base
    return base._replace(tensors=(*base.tensors, *fp32(kept(rows, text_width(whole), bias=False))))
