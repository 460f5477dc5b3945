"""Towers that are like no other: Moondream's, RADIO, OpenVLA's."""

from collections.abc import Mapping
from typing import NamedTuple

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.blocks import (
    EVERY_MEDIUM,
    Block,
    MissingPart,
    Towers,
    cut,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    part,
    perceptron,
    rms_norm,
    text_of,
    text_width,
    times,
    whole_on_ranks,
)
from vllm_doctor.memory.families.towers.speech import parakeet


class Timm(NamedTuple):
    """A vision transformer of timm's: what its name says."""

    width: int
    layers: int
    feed: int


# vLLM 0.32 transformers_utils/configs/radio.py VIT_TIMM_DIM_BY_NAME.
_RADIO: Mapping[str, Timm] = {
    "vit_small_patch16_224": Timm(384, 12, 1536),
    "vit_base_patch16_224": Timm(768, 12, 3072),
    "vit_large_patch16_224": Timm(1024, 24, 4096),
    "vit_huge_patch16_224": Timm(1280, 32, 5120),
}
_RADIO_PATCH = 16


def moondream3(whole: Config) -> Towers:
    """Moondream 3: SigLIP's blocks, two crops joined for the projector (moondream3.py); its own class's defaults."""
    vision, text = whole.section("vision_config") or Config({}), whole.section("text_config") or Config({})
    width = vision.positive("enc_dim", default=1152)
    feed, layers = (
        vision.positive("enc_ff_dim", default=4304),
        vision.positive("enc_n_layers", default=27, largest=2048),
    )
    patch, side = vision.positive("enc_patch_size", default=14), vision.positive("crop_size", default=378)
    inner, out = vision.positive("proj_inner_dim", default=8192), text.positive("dim", "hidden_size", default=2048)
    tensors = (
        *numbers((side // patch) ** 2, width),
        *kept(width, 3 * patch * patch),
        *times(Block(width, feed).tensors(), layers),
        *layer_norm(width),
        *perceptron(2 * width, inner, out),
    )
    return Towers(tensors, True, width, layers)


def _radio(vision: Config) -> tuple[Tensors, Tensors, Timm]:
    """RADIO's first tables, one of its blocks and its size, which follows from a name (radio.py)."""
    args = part(vision, "args")
    model = _RADIO.get(args.text("model") or vision.text("model_name") or "")
    if model is None:
        raise MissingPart("the name of the RADIO model is not known")
    side = -(-args.positive("cpe_max_size", default=2048) // _RADIO_PATCH)
    stem = (
        *numbers(side * side, model.width),
        *numbers(_first_tokens(args), model.width),
        *kept_numbers(model.width, 3 * _RADIO_PATCH**2, bias=False),
    )
    return stem, Block(model.width, model.feed, scales=2).tensors(), model


def _first_tokens(args: Config) -> int:
    """Tokens before the patches: one per teacher or one, and registers up to a multiple."""
    teachers = args.get("teachers")
    names = len({str(t.get("name")) for t in teachers if isinstance(t, dict)}) if isinstance(teachers, list) else 0
    classes = max(1, names) if args.flag("cls_token_per_teacher") else 1
    multiple = args.count("register_multiple", default=0)
    return classes + (multiple - classes % multiple if multiple else 0)


def nemotron_vl(whole: Config) -> Towers:
    """Llama Nemotron Nano VL: RADIO whole on every rank, pixels shuffled, two projections (nemotron_vl.py)."""
    stem, block, model = _radio(part(whole, "vision_config"))
    columns = whole.positive("vit_hidden_size", default=model.width) * 4
    inner = whole.positive("projector_hidden_size")
    joins = (*layer_norm(columns), *perceptron(columns, inner, text_width(whole), split=False))
    tensors = (*stem, *times(whole_on_ranks(block), model.layers), *joins)
    return Towers(tensors, True, model.width, model.layers)


def nemotron_nano(whole: Config) -> Towers:
    """Nemotron Nano VL and Omni: RADIO, a projector without biases, in some Parakeet (nano_nemotron_vl.py)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    stem, block, model = _radio(vision)
    frames = vision.count("video_temporal_patch_size", default=1)
    video = kept_numbers(model.width, 3 * frames * _RADIO_PATCH**2, bias=False) if frames > 1 else ()
    wide = whole.positive("vit_hidden_size", default=model.width)
    columns = wide * round(1 / (whole.number("downsample_ratio", 0.5) or 0.5)) ** 2
    inner = whole.positive("projector_hidden_size")
    last = layer_norm(wide) if text_of(whole).count("num_nextn_predict_layers", default=0) else ()
    joins = (*last, *rms_norm(columns), *perceptron(columns, inner, hidden, bias=False, split=False))
    sound = whole.section("sound_config")
    heard = parakeet(sound, hidden) if sound is not None else ()
    tensors = (*stem, *video, *times(block, model.layers), *joins, *heard)
    return Towers(tensors, True, model.width, model.layers, media=EVERY_MEDIUM)


def nemotron_parse(whole: Config) -> Towers:
    """Nemotron Parse: RADIO, then convolutions that make fewer and narrower tokens (nemotron_parse.py)."""
    stem, block, model = _radio(part(whole, "encoder"))
    width = part(whole, "decoder").positive("d_model")
    joins = (
        *kept_numbers(width, model.width),
        *kept_numbers(width, 4 * width, bias=False),
        *cut(width, 3 * model.width),
        *times(layer_norm(width), 3),
    )
    return Towers((*stem, *times(block, model.layers), *joins), True, model.width, model.layers, media=("image",))


_DINO, _SIGLIP = Timm(1024, 24, 4096), Timm(1152, 27, 4304)
_VLA_PATCHES, _VLA_PATCH, _DINO_REGISTERS = 256, 588, 4


def openvla(whole: Config) -> Towers:
    """OpenVLA: timm's DINOv2 and SigLIP side by side at 224 pixels, three projections (openvla.py)."""
    hidden, both = text_width(whole), _DINO.width + _SIGLIP.width

    def timm(model: Timm, scales: int) -> Tensors:
        block = whole_on_ranks(Block(model.width, model.feed, scales=scales).tensors())
        stem = (*numbers(_VLA_PATCHES, model.width), *kept_numbers(model.width, _VLA_PATCH))
        return (*stem, *times(block, model.layers), *layer_norm(model.width))

    width = _SIGLIP.width
    pooling = (
        *numbers(width),
        *kept(3 * width, width),
        *kept(width, width),
        *layer_norm(width),
        *perceptron(width, _SIGLIP.feed, width, split=False),
    )
    tensors = (
        *numbers(1 + _DINO_REGISTERS, _DINO.width),
        *timm(_DINO, 2),
        *timm(_SIGLIP, 0),
        *pooling,
        *perceptron(both, 4 * both, hidden),
        *kept(hidden, hidden),
    )
    fused = whole.flag("use_fused_vision_backbone", default=True)
    doubts = () if fused else ("the vision tower is an estimate",)
    return Towers(tensors, True, width, _SIGLIP.layers, doubts)
