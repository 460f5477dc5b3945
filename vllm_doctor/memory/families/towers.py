"""Vision and audio towers: what a multi-modal model holds beside its language model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config
from vllm_doctor.memory.facts import Architecture, Split, Tensor
from vllm_doctor.memory.families.encoder_decoder import audio_encoder
from vllm_doctor.memory.families.parts import Tensors, linear, mlp, norm, norms, plain


class Towers(NamedTuple):
    """The tensors beside the language model; `doubts` says what of them is not counted exactly."""

    tensors: Tensors = ()
    multimodal: bool = False
    hidden_size: int = 0
    layers: int = 0
    doubts: tuple[str, ...] = ()

    def changes(self, base: Architecture) -> Mapping[str, Any]:
        """The fields of the architecture that the towers fill."""
        if not self.multimodal:
            return {}
        towers: tuple[Tensor, ...] = (*base.towers, *self.tensors)
        return {
            "towers": towers,
            "is_multimodal": True,
            "vision_hidden_size": self.hidden_size,
            "vision_layers": self.layers,
            "exact": base.exact and not self.doubts,
            "approximations": (*base.approximations, *self.doubts),
        }


def no_towers() -> Towers:
    """A language model alone."""
    return Towers()


def vit_layers(
    width: int, feed: int, layers: int, *, gated: bool = False, bias: bool = True, rms: bool = False
) -> Tensors:
    """The blocks of a vision transformer."""
    one: Tensors = (
        *linear("vision.attn.qkv", 3 * width, width, Split.ROWS, bias=bias),
        *linear("vision.attn.proj", width, width, Split.COLUMNS, bias=bias),
        *mlp(width, feed, gated=gated, bias=bias, prefix="vision.mlp."),
        *norms(2, width, bias=not rms),
    )
    return one * layers


def _patch(config: Config, width: int, depth: int = 1, *, bias: bool = True) -> Tensors:
    side = config.positive("patch_size")
    channels = config.count("num_channels", "in_channels", "in_chans", default=3)
    weight = plain("vision.patch_embed", width, channels * depth * side * side)
    return (weight, plain("vision.patch_embed.bias", width)) if bias else (weight,)


def qwen_vl(whole: Config) -> Towers:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL (qwen2_vl.py, qwen2_5_vl.py, qwen3_vl.py)."""
    vision = whole.section("vision_config")
    if vision is None:
        return unknown_towers(whole)
    # Qwen2-VL's hidden_size is the width that it hands on; later ones have out_hidden_size for that.
    width = vision.positive("embed_dim", "hidden_size")
    layers = vision.positive("depth", "num_hidden_layers", largest=LARGEST_LAYERS)
    out = vision.optional("out_hidden_size") or vision.positive("hidden_size")
    merged = width * vision.positive("spatial_merge_size", default=2) ** 2
    third = vision.model_type.startswith("qwen3")
    modern = vision.model_type.startswith("qwen2_5")
    feed = vision.optional("intermediate_size") or int(vision.number("mlp_ratio", 4.0) * width)
    merger: Tensors = (
        *norm("vision.merger.norm", width, bias=not modern),
        *linear("vision.merger.fc1", merged, merged, Split.ROWS, bias=True),
        *linear("vision.merger.fc2", out, merged, Split.COLUMNS, bias=True),
    )
    deep: Tensors = (
        *norm("vision.deepstack.norm", merged, bias=True),
        *linear("vision.deepstack.fc1", merged, merged, Split.ROWS, bias=True),
        *linear("vision.deepstack.fc2", out, merged, Split.COLUMNS, bias=True),
    ) * len(vision.counts("deepstack_visual_indexes"))
    positions = vision.count("num_position_embeddings", default=0)
    tensors = (
        *_patch(vision, width, vision.positive("temporal_patch_size", default=2), bias=third),
        *((plain("vision.pos_embed", positions, width),) if third and positions else ()),
        *vit_layers(width, feed, layers, gated=modern, rms=modern),
        *merger,
        *deep,
    )
    return Towers(tensors, True, width, layers)


def clip_like(whole: Config) -> Towers:
    """LLaVA, Gemma 3, PaliGemma, Mistral 3 with a CLIP, SigLIP or Pixtral tower and a projector."""
    vision = whole.section("vision_config")
    text = whole.section("text_config")
    if vision is None or text is None:
        return unknown_towers(whole)
    width = vision.positive("hidden_size")
    layers = vision.positive("num_hidden_layers", largest=LARGEST_LAYERS)
    feed = vision.positive("intermediate_size")
    pixtral = vision.model_type == "pixtral"
    image, patch = vision.count("image_size", default=0), vision.positive("patch_size")
    class_token = 1 if vision.model_type == "clip_vision_model" else 0
    if pixtral:
        tensors: Tensors = (
            *_patch(vision, width, bias=False),
            *norm("vision.ln_pre", width),
            *vit_layers(width, feed, layers, gated=True, bias=False, rms=True),
        )
    else:
        tensors = (
            *_patch(vision, width, bias=class_token == 0),
            plain("vision.positions", (image // patch) ** 2 + class_token, width),
            *vit_layers(width, feed, layers),
            *norms(2 if class_token else 1, width, bias=True),
        )
    hidden = text.positive("hidden_size")
    doubts = () if vision.model_type in _KNOWN_TOWERS else (f"the vision tower ({vision.model_type}) is an estimate",)
    return Towers((*tensors, *_projector(whole, width, hidden)), True, width, layers, doubts)


_KNOWN_TOWERS = ("clip_vision_model", "siglip_vision_model", "pixtral")


def _projector(whole: Config, width: int, hidden: int) -> Tensors:
    """What joins the tower to the language model."""
    if whole.model_type in ("gemma3", "paligemma"):
        norms_ = norm("projector.norm", width) if whole.model_type == "gemma3" else ()
        bias = whole.model_type == "paligemma"
        return (*norms_, *linear("projector.linear", hidden, width, Split.WHOLE, bias=bias))
    if whole.model_type == "mistral3":
        merge = whole.positive("spatial_merge_size", default=2) ** 2
        return (
            *norm("projector.norm", width),
            *linear("projector.patch_merger", width, width * merge, Split.WHOLE),
            *linear("projector.linear_1", hidden, width, Split.ROWS),
            *linear("projector.linear_2", hidden, hidden, Split.COLUMNS),
        )
    return (
        *linear("projector.linear_1", hidden, width, Split.ROWS, bias=True),
        *linear("projector.linear_2", hidden, hidden, Split.COLUMNS, bias=True),
    )


def idefics3(whole: Config) -> Towers:
    """Idefics3 and SmolVLM: SigLIP, pixels shuffled, one projection (idefics3.py)."""
    vision, text = whole.section("vision_config"), whole.section("text_config")
    if vision is None or text is None:
        return unknown_towers(whole)
    width, layers = vision.positive("hidden_size"), vision.positive("num_hidden_layers", largest=LARGEST_LAYERS)
    feed = vision.positive("intermediate_size")
    side = vision.positive("image_size") // vision.positive("patch_size")
    scale = whole.positive("scale_factor", default=2)
    tensors = (
        *_patch(vision, width),
        plain("vision.positions", side * side, width),
        *vit_layers(width, feed, layers),
        *norm("vision.post_layernorm", width, bias=True),
        *linear("projector.proj", text.positive("hidden_size"), width * scale * scale, Split.WHOLE),
    )
    return Towers(tensors, True, width, layers)


def intern_vl(whole: Config) -> Towers:
    """InternVL: InternViT, pixels shuffled, two projections (internvl.py, intern_vit.py)."""
    vision, text = whole.section("vision_config"), whole.section("text_config", "llm_config")
    if vision is None or text is None or vision.flag("use_qk_norm", "qk_normalization"):
        return unknown_towers(whole)
    width, layers = vision.positive("hidden_size"), vision.positive("num_hidden_layers", largest=LARGEST_LAYERS)
    feed, hidden = vision.positive("intermediate_size"), text.positive("hidden_size")
    side = _side(vision, "image_size") // _side(vision, "patch_size")
    joined = 4 * width
    block: Tensors = (
        *linear("vision.attn.qkv", 3 * width, width, Split.ROWS, bias=vision.flag("qkv_bias", "attention_bias")),
        *linear("vision.attn.proj", width, width, Split.COLUMNS, bias=True),
        *mlp(width, feed, gated=False, bias=True, prefix="vision.mlp."),
        *norms(2, width, bias=vision.text("norm_type") != "rms_norm"),
        plain("vision.scales", 2, width),
    )
    tensors = (
        plain("vision.patch_embed", width, 3 * _side(vision, "patch_size") ** 2),
        plain("vision.patch_embed.bias", width),
        plain("vision.class_embedding", width),
        plain("vision.positions", side * side + 1, width),
        *block * layers,
        *norm("projector.norm", joined, bias=True),
        *linear("projector.linear_1", hidden, joined, Split.WHOLE, bias=True),
        *linear("projector.linear_2", hidden, hidden, Split.WHOLE, bias=True),
    )
    return Towers(tensors, True, width, layers)


def _side(vision: Config, key: str) -> int:
    """An image's or a patch's side, which some configs give for both directions."""
    listed = vision.get(key)
    return max(vision.counts(key), default=1) if isinstance(listed, list) else vision.positive(key)


def llama4(whole: Config) -> Towers:
    """Llama 4: a vision transformer, an adapter of two layers and one projection (mllama4.py)."""
    vision, text = whole.section("vision_config"), whole.section("text_config")
    if vision is None or text is None:
        return unknown_towers(whole)
    width, layers = vision.positive("hidden_size"), vision.positive("num_hidden_layers", largest=LARGEST_LAYERS)
    feed, patch = vision.positive("intermediate_size"), vision.positive("patch_size")
    places = (vision.positive("image_size") // patch) ** 2 + 1
    inner, out = vision.positive("projector_input_dim"), vision.positive("projector_output_dim")
    tensors = (
        plain("vision.class_embedding", width),
        plain("vision.positions", places, width),
        *linear("vision.patch_embedding", width, 3 * patch * patch, Split.ROWS),
        *norms(2, width, bias=True),
        *vit_layers(width, feed, layers),
        *linear("vision.adapter.fc1", inner, feed, Split.ROWS),
        *linear("vision.adapter.fc2", out, inner, Split.COLUMNS),
        *linear("projector.linear_1", text.positive("hidden_size"), vision.positive("vision_output_dim"), Split.ROWS),
    )
    return Towers(tensors, True, width, layers)


def whisper_audio(whole: Config) -> Towers:
    """Qwen2-Audio, Ultravox, Voxtral: Whisper's encoder and one projection."""
    audio, text = whole.section("audio_config"), whole.section("text_config")
    if audio is None or text is None:
        return unknown_towers(whole)
    width = audio.positive("d_model", "hidden_size")
    join = linear("projector.linear", text.positive("hidden_size"), width, Split.WHOLE, bias=True)
    doubts = () if whole.model_type == "qwen2_audio" else ("the audio projector is an estimate",)
    tower = audio_encoder(audio)
    if whole.model_type == "qwen2_audio":  # Transformers' own module, whole on every rank (qwen2_audio.py)
        tower = tuple(replace(t, split=Split.WHOLE) for t in tower if not t.added)
    return Towers((*tower, *join), True, 0, 0, doubts)


def minimax_m3(whole: Config) -> Towers:
    """MiniMax-M3: a CLIP-like tower, a projector and a merger of patches (minimax_m3/common/vision_tower.py)."""
    vision, text = whole.section("vision_config"), whole.section("text_config")
    packing = vision.section("img_token_compression_config") if vision is not None else None
    if vision is None or text is None or packing is None:
        return unknown_towers(whole)
    width, layers = vision.positive("hidden_size"), vision.positive("num_hidden_layers", largest=LARGEST_LAYERS)
    hidden = text.positive("hidden_size")
    inner = whole.optional("projector_hidden_size") or hidden
    joined = hidden * packing.positive("spatial_merge_size", default=2) ** 2
    projected = vision.flag("multimodal_projector_bias", default=True)
    merged = vision.flag("patch_merge_bias", default=True)
    tensors = (
        *_patch(vision, width, packing.positive("temporal_patch_size", default=2), bias=False),
        *norm("vision.pre_layrnorm", width, bias=True),
        *vit_layers(width, vision.positive("intermediate_size"), layers),
        *linear("projector.linear_1", inner, width, Split.ROWS, bias=projected),
        *linear("projector.linear_2", hidden, inner, Split.COLUMNS, bias=projected),
        *linear("projector.merge_1", inner, joined, Split.ROWS, bias=merged),
        *linear("projector.merge_2", hidden, inner, Split.COLUMNS, bias=merged),
    )
    return Towers(tensors, True, width, layers)


def unknown_towers(whole: Config) -> Towers:
    """A tower whose layers are not known: a plain vision transformer by the numbers it has, marked as an estimate."""
    vision = whole.section("vision_config", "vit_config", "visual", "vision_tower_config")
    doubt = ("the vision or audio tower is an estimate",)
    if vision is None:
        return Towers((), True, 0, 0, ("the vision or audio tower is not counted",))
    width = vision.count("hidden_size", "embed_dim", "width", default=0)
    layers = vision.count("num_hidden_layers", "depth", "layers", default=0, largest=LARGEST_LAYERS)
    if not width or not layers:
        return Towers((), True, 0, 0, ("the vision tower is not counted",))
    feed = vision.count("intermediate_size", default=0) or 4 * width
    return Towers(vit_layers(width, feed, layers), True, width, layers, doubt)


TOWERS: Mapping[str, Callable[[Config], Towers]] = {
    "Qwen2VLForConditionalGeneration": qwen_vl,
    "Qwen2_5_VLForConditionalGeneration": qwen_vl,
    "Qwen3VLForConditionalGeneration": qwen_vl,
    "Qwen3VLMoeForConditionalGeneration": qwen_vl,
    "Qwen3_5ForConditionalGeneration": qwen_vl,
    "Qwen3_5MoeForConditionalGeneration": qwen_vl,
    "LlavaForConditionalGeneration": clip_like,
    "LlavaNextForConditionalGeneration": clip_like,
    "LlavaNextVideoForConditionalGeneration": clip_like,
    "LlavaOnevisionForConditionalGeneration": clip_like,
    "Gemma3ForConditionalGeneration": clip_like,
    "PaliGemmaForConditionalGeneration": clip_like,
    "Mistral3ForConditionalGeneration": clip_like,
    "InternVLForConditionalGeneration": intern_vl,
    "InternVLChatModel": intern_vl,
    "Llama4ForConditionalGeneration": llama4,
    "MiniMaxM3SparseForConditionalGeneration": minimax_m3,
    "Idefics3ForConditionalGeneration": idefics3,
    "SmolVLMForConditionalGeneration": idefics3,
    "Qwen2AudioForConditionalGeneration": whisper_audio,
    "UltravoxModel": whisper_audio,
    "VoxtralForConditionalGeneration": whisper_audio,
}
