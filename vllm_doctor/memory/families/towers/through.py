"""The towers that Transformers' own classes have, divided where vLLM's Transformers backend fuses their layers.

Attention of three layers alike is dealt out by heads, a gated MLP by its width; every other layer is whole on every
rank (vLLM 0.32 model_executor/models/transformers/fusers). All layers of a tower are built, be their features taken or
not. Models are named by the type of their config.
"""

from collections.abc import Callable, Mapping
from importlib import import_module

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.facts import LASTING, Split, Tensor
from vllm_doctor.memory.families.parts import Tensors, mlp
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    Towers,
    depth_of,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    part,
    patches,
    perceptron,
    rms_norm,
    text_of,
    text_width,
    times,
)
from vllm_doctor.memory.families.towers.intern import shuffled_width
from vllm_doctor.memory.families.towers.qwen import vit
from vllm_doctor.memory.families.towers.vits import clip, conformer_convolutions, pixtral, siglip, whole_whisper

_IMAGES = ("image",)
_SOUND = ("audio",)


def divided(tensors: Tensors, heads: int = 0) -> Tensors:
    """Transformers' own layers with what the backend fuses: attention (`heads` 0: packed, not fused), gated MLPs."""
    gated = any(t.name.startswith("vision.mlp.gate_proj") for t in tensors)
    return tuple(_divided(t, heads, gated) for t in tensors if not t.added)


def _divided(tensor: Tensor, heads: int, gated: bool) -> Tensor:
    if heads and tensor.name.startswith("vision.attn."):
        return replace(tensor, units=heads)
    if gated and tensor.name.startswith("vision.mlp."):
        return replace(tensor, units=max(tensor.columns if tensor.split is Split.COLUMNS else tensor.rows, 1))
    return replace(tensor, split=Split.WHOLE)


def _seen(tensors: Tensors, vision: Config, media: tuple[str, ...] = ("image", "video")) -> Towers:
    return Towers(tensors, True, vision.positive("hidden_size"), depth_of(vision), media=media)


def _heads(vision: Config) -> int:
    return vision.positive("num_attention_heads", "num_heads")


def tower(vision: Config) -> Towers:
    """CLIP, SigLIP or Pixtral by the type; of another type an estimate."""
    heads = _heads(vision)
    doubts: tuple[str, ...] = ()
    if vision.model_type == "pixtral":
        found = pixtral(vision)
    elif vision.model_type == "clip_vision_model":
        found = clip(vision)
    else:
        found = siglip(vision, head=vision.flag("vision_use_head", default=True))
        known = vision.model_type == "siglip_vision_model"
        doubts = () if known else (f"the vision tower ({vision.model_type}) is an estimate",)
    return _seen(divided(found, heads), vision, _IMAGES)._replace(doubts=doubts)


def lasting(joins: Tensors) -> Tensors:
    """What stands beside an encoder and is built though no medium is allowed (multimodal.py _mark_model_components)."""
    return tuple(replace(t, name=f"{LASTING}{t.name}") for t in joins)


def _joined(base: Towers, *joins: Tensor) -> Towers:
    return base._replace(tensors=(*base.tensors, *lasting(joins)))


def _two_layers(columns: int, rows: int, *, bias: bool = True) -> Tensors:
    return perceptron(columns, rows, rows, bias=bias, split=False)


def llava(whole: Config) -> Towers:
    """LLaVA 1.5."""
    vision, bias = part(whole, "vision_config"), whole.flag("multimodal_projector_bias", default=True)
    listed = whole.get("vision_feature_layer")
    width = vision.positive("hidden_size") * (len(listed) if isinstance(listed, list) else 1)
    return _joined(tower(vision), *_two_layers(width, text_width(whole), bias=bias))


def llava_next(whole: Config) -> Towers:
    """LLaVA-NeXT and its video model: a row that marks new lines too."""
    return _joined(llava(whole), *numbers(text_width(whole)))


def llava_onevision(whole: Config) -> Towers:
    """LLaVA-OneVision: LLaVA-NeXT's parts, for videos too."""
    return llava_next(whole)._replace(media=("image", "video"))


def vip_llava(whole: Config) -> Towers:
    """ViP-LLaVA: the features of several layers, a norm, two layers."""
    vision, layers = part(whole, "vision_config"), whole.get("vision_feature_layers")
    count = len(layers) if isinstance(layers, list) else 1 if isinstance(layers, int) else 5
    width = vision.positive("hidden_size") * count
    bias = whole.flag("multimodal_projector_bias", default=True)
    return _joined(tower(vision), *layer_norm(width), *_two_layers(width, text_width(whole), bias=bias))


def video_llava(whole: Config) -> Towers:
    """Video-LLaVA: a tower for images and one for videos."""
    base = llava(whole)
    more = tower(part(whole, "vision_config")).tensors
    return base._replace(tensors=(*base.tensors, *more), media=("image", "video"))


def gemma3(whole: Config) -> Towers:
    """Gemma 3: SigLIP, a norm and one projection."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    return _joined(tower(vision), *rms_norm(width), *kept(text_width(whole), width, bias=False))


def paligemma(whole: Config) -> Towers:
    """PaliGemma: SigLIP and one projection."""
    vision = part(whole, "vision_config")
    width = whole.positive("projection_dim", default=text_width(whole))
    return _joined(tower(vision), *kept(width, vision.positive("hidden_size")))


def mistral3(whole: Config) -> Towers:
    """Mistral 3 and LightOnOCR: Pixtral, patches merged, two projections."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width, merge = vision.positive("hidden_size"), whole.positive("spatial_merge_size", default=2) ** 2
    joins = (*rms_norm(width), *kept(width, width * merge, bias=False))
    bias = whole.flag("multimodal_projector_bias")
    return _joined(tower(vision), *joins, *_two_layers(width, hidden, bias=bias))


def idefics3(whole: Config) -> Towers:
    """Idefics3 and SmolVLM: SigLIP without a head, pixels shuffled, one projection."""
    vision, scale = part(whole, "vision_config"), whole.positive("scale_factor", default=2)
    width = vision.positive("hidden_size")
    proj = kept(text_width(whole), width * scale * scale, bias=False)
    return _seen((*divided(siglip(vision), _heads(vision)), *lasting(proj)), vision)


def idefics2(whole: Config) -> Towers:
    """Idefics2: SigLIP without a head, a gated projection, latents that attend to the patches."""
    vision, text = part(whole, "vision_config"), text_of(whole)
    asked = whole.section("perceiver_config") or Config({})
    hidden, feed = text.positive("hidden_size"), text.positive("intermediate_size")
    heads, size = asked.positive("resampler_n_heads", default=16), asked.positive("resampler_head_dim", default=96)
    pairs = asked.positive("num_key_value_heads", default=4)
    latents = asked.positive("resampler_n_latents", default=64)
    layer = (
        *kept((heads + 2 * pairs) * size, hidden, bias=False),
        *kept(hidden, heads * size, bias=False),
        *mlp(hidden, 4 * hidden, prefix="vision.mlp."),
        *times(rms_norm(hidden), 3),
    )
    projection = (
        *mlp(vision.positive("hidden_size"), feed, prefix="vision.mlp.")[:2],
        *mlp(hidden, feed, prefix="vision.mlp.")[2:],
    )
    depth = asked.positive("resampler_depth", default=3, largest=2048)
    joins = (*projection, *numbers(latents, hidden), *times(layer, depth), *rms_norm(hidden))
    return _seen((*divided(siglip(vision), _heads(vision)), *lasting(divided(joins))), vision, _IMAGES)


def cohere2_vision(whole: Config) -> Towers:
    """Command A Vision: SigLIP, pixels shuffled, a gated projector."""
    vision, scale = part(whole, "vision_config"), whole.positive("downsample_factor", default=2) ** 2
    inner = whole.positive("alignment_intermediate_size", default=36864)
    joins = (*kept(inner, vision.positive("hidden_size") * scale), *kept(text_width(whole), inner // 2))
    return _joined(tower(vision), *joins)


def aya_vision(whole: Config) -> Towers:
    """Aya Vision: as Command A Vision, with a norm."""
    vision, scale = part(whole, "vision_config"), whole.positive("downsample_factor", default=2) ** 2
    hidden, width = text_width(whole), vision.positive("hidden_size") * scale
    inner = whole.positive("alignment_intermediate_size", default=hidden)
    return _joined(tower(vision), *layer_norm(width), *kept(inner, width), *kept(hidden, inner // 2))


def internvl(whole: Config) -> Towers:
    """InternVL as Transformers has it."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width, heads = vision.positive("hidden_size"), _heads(vision)
    sides = [max(1, *(vision.counts(k) or (vision.positive(k),))) for k in ("image_size", "patch_size")]
    layer = Block(
        width,
        vision.positive("intermediate_size"),
        qkv_bias=vision.flag("attention_bias"),
        rms=vision.text("norm_type") == "rms_norm",
        scales=4 if vision.flag("use_qk_norm") else 2,
    )
    has_positions = vision.flag("use_absolute_position_embeddings", default=True)
    tensors = (
        *numbers(2 if vision.flag("use_mask_token") else 1, width),
        *patches(vision, width),
        *(numbers((sides[0] // sides[1]) ** 2 + 1, width) if has_positions else ()),
        *times(layer.tensors(), depth_of(vision)),
        *(layer_norm(width) if not vision.flag("use_mean_pooling", default=True) else ()),
    )
    columns = shuffled_width(whole, vision)
    joins = (*layer_norm(columns), *_two_layers(columns, hidden))
    return _seen((*divided(tensors, heads), *lasting(joins)), vision)


def qwen_vl(whole: Config) -> Towers:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL, whose attention is packed."""
    vision = part(whole, "vision_config")
    typed = vision if vision.model_type else Config(vision.values, whole.model_type, whole.values)
    width = vision.positive("embed_dim", "hidden_size")
    return Towers(divided(vit(typed)), True, width, depth_of(vision))


def glm4v(whole: Config) -> Towers:
    """GLM-4.1V, GLM-4.5V: packed attention, gated MLPs in the blocks and in the merger."""
    vision = part(whole, "vision_config")
    width, out = vision.positive("hidden_size"), vision.positive("out_hidden_size")
    bias = vision.flag("attention_bias")
    block = Block(width, out, True, True, qkv_bias=bias, out_bias=False, feed_bias=False)
    joins = mlp(out, vision.positive("intermediate_size"), prefix="vision.mlp.")
    sides = (vision.positive("image_size") // vision.positive("patch_size")) ** 2
    more = (*numbers(sides, width), *rms_norm(width))
    return _merged(vision, (*times(block.tensors(), depth_of(vision)), *joins, *more))


def glm_ocr(whole: Config) -> Towers:
    """GLM-OCR: norms of queries and keys, biases, no positions."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    inner = vision.positive("out_hidden_size") * vision.positive("in_channels", "num_channels", default=3)
    block = Block(width, vision.positive("intermediate_size"), True, True, query_key_norm=width // _heads(vision))
    joins = mlp(vision.positive("out_hidden_size"), inner, prefix="vision.mlp.")
    return _merged(vision, (*times(block.tensors(), depth_of(vision)), *joins))


def _merged(vision: Config, tensors: Tensors) -> Towers:
    """GLM's patches, the convolution that takes four of them together, and the merger's projection."""
    width, out = vision.positive("hidden_size"), vision.positive("out_hidden_size")
    merge = vision.positive("spatial_merge_size", default=2) ** 2
    own = (
        *patches(vision, width, vision.positive("temporal_patch_size", default=2)),
        *tensors,
        *kept(out, out, bias=False),
        *layer_norm(out),
        *kept_numbers(out, width * merge),
        *rms_norm(width),
    )
    return _seen(divided(own), vision)


def got_ocr2(whole: Config) -> Towers:
    """GOT-OCR 2: SAM's tower with relative positions, convolutions that join patches, one projection."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    width, out = vision.positive("hidden_size"), vision.positive("output_channels", default=256)
    side = vision.positive("image_size", default=1024) // vision.positive("patch_size", default=16)
    layers, size = depth_of(vision), width // _heads(vision)
    everywhere = len([i for i in vision.counts("global_attn_indexes") if i < layers])
    window = vision.positive("window_size", default=14)
    relative = everywhere * 2 * (2 * side - 1) + (layers - everywhere) * 2 * (2 * window - 1)
    block = Block(width, vision.positive("mlp_dim"), qkv_bias=vision.flag("qkv_bias", default=True))
    tensors = (
        *patches(vision, width),
        *(numbers(side * side, width) if vision.flag("use_abs_pos", default=True) else ()),
        *times(block.tensors(), layers),
        *(numbers(relative, size) if vision.flag("use_rel_pos", default=True) else ()),
        *kept_numbers(out, width, bias=False),
        *kept_numbers(out, out * 9, bias=False),
        *times(layer_norm(out), 2),
    )
    joins = (
        *kept_numbers(2 * out, out * 9, bias=False),
        *kept_numbers(hidden, 2 * out * 9, bias=False),
        *kept(hidden, hidden),
    )
    return _seen((*divided(tensors), *lasting(joins)), vision, _IMAGES)


def deepseek_vl(whole: Config) -> Towers:
    """DeepSeek-VL: SigLIP and two layers."""
    vision = part(whole, "vision_config")
    return _joined(tower(vision), *_two_layers(vision.positive("hidden_size"), text_width(whole)))


def qwen2_audio(whole: Config) -> Towers:
    """Qwen2-Audio: Whisper's encoder, whose attention is not fused, and one projection."""
    audio = part(whole, "audio_config")
    joins = kept(text_width(whole), audio.positive("d_model", "hidden_size"))
    return Towers((*whole_whisper(audio), *lasting(joins)), True, media=_SOUND)


def audio_flamingo(whole: Config) -> Towers:
    """Audio Flamingo 3: Whisper's encoder and two projections."""
    audio, bias = part(whole, "audio_config"), whole.flag("projector_bias", default=True)
    joins = _two_layers(audio.positive("d_model", "hidden_size"), text_width(whole), bias=bias)
    return Towers((*whole_whisper(audio), *lasting(joins)), True, media=_SOUND)


def voxtral(whole: Config) -> Towers:
    """Voxtral: Whisper's encoder, four frames joined, two projections without biases."""
    audio = part(whole, "audio_config")
    joins = _two_layers(audio.positive("intermediate_size", "encoder_ffn_dim"), text_width(whole), bias=False)
    return Towers((*whole_whisper(audio), *lasting(joins)), True, media=_SOUND)


def glm_asr(whole: Config) -> Towers:
    """GLM-ASR: convolutions, Whisper's layers without positions, four frames joined, two projections."""
    audio, hidden = part(whole, "audio_config"), text_width(whole)
    width, feed = audio.positive("hidden_size"), audio.positive("intermediate_size")
    layer = (
        *kept(3 * width, width, bias=False),
        *numbers(2, width),
        *kept(width, width),
        *perceptron(width, feed, width, split=False),
        *times(layer_norm(width), 2),
    )
    tensors = (
        *conformer_convolutions(width, audio.positive("num_mel_bins")),
        *times(layer, depth_of(audio)),
        *layer_norm(width),
        *lasting(perceptron(feed, 2 * hidden, hidden, split=False)),
    )
    return Towers(tensors, True, media=_SOUND)


Reader = Callable[[Config], Towers]

BY_TYPE: Mapping[str, Reader | str] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_next_video": llava_next,
    "llava_onevision": llava_onevision,
    "vipllava": vip_llava,
    "video_llava": video_llava,
    "gemma3": gemma3,
    "paligemma": paligemma,
    "mistral3": mistral3,
    "lighton_ocr": mistral3,
    "idefics2": idefics2,
    "idefics3": idefics3,
    "smolvlm": idefics3,
    "cohere2_vision": cohere2_vision,
    "aya_vision": aya_vision,
    "internvl": internvl,
    "qwen2_vl": qwen_vl,
    "qwen2_5_vl": qwen_vl,
    "qwen3_vl": qwen_vl,
    "qwen3_vl_moe": qwen_vl,
    "glm4v": glm4v,
    "glm4v_moe": glm4v,
    "glm_ocr": glm_ocr,
    "got_ocr2": got_ocr2,
    "deepseek_vl": deepseek_vl,
    "qwen2_audio": qwen2_audio,
    "audioflamingo3": audio_flamingo,
    "voxtral": voxtral,
    "glmasr": glm_asr,
    "emu3": "emu.emu3",
    "hunyuan_vl": "navit.hunyuan",
    "vibevoice_asr": "speech.vibe_voice",
}


def towers_of_type(whole: Config) -> Towers | None:
    """The towers of the config's model type; None for one whose towers nobody compared."""
    found = BY_TYPE.get(whole.model_type)
    if isinstance(found, str):
        module, _, function = found.rpartition(".")
        found = getattr(import_module(f"{__package__}.{module}"), function)
    return None if found is None else found(whole)
