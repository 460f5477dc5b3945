"""InternViT and the models that stand on it: InternVL, Intern-S1, NVLM, Skywork-R1V, H2OVL, Eagle 2.5, ..."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.facts import Split
from vllm_doctor.memory.families.parts import Tensors, linear, norms
from vllm_doctor.memory.families.towers.blocks import (
    Towers,
    grid,
    kept,
    layer_norm,
    numbers,
    part,
    patches,
    perceptron,
    text_of,
    text_width,
    times,
)
from vllm_doctor.memory.families.towers.llava import seen
from vllm_doctor.memory.families.towers.vits import feature_layers, siglip

# NVLM adds heads so that 25 become a number that 8 divides (nvlm_d.py, num_dummy_heads).
_NVLM_HEADS = 7


def intern_vit(vision: Config, layers: int, more_heads: int = 0) -> Tensors:
    """InternViT; the attention is whole on every rank where the ranks do not divide its heads (intern_vit.py)."""
    width, heads = vision.positive("hidden_size"), vision.positive("num_attention_heads")
    size = width // heads
    all_heads = heads + more_heads
    inner = all_heads * size
    block = (
        *linear(
            "vision.attn.qkv",
            3 * inner,
            width,
            Split.ROWS,
            bias=vision.flag("qkv_bias", "attention_bias"),
            heads=all_heads,
        ),
        *(numbers(2, inner) if vision.flag("qk_normalization") else ()),
        *linear("vision.attn.proj", width, inner, Split.COLUMNS, heads=all_heads),
        *numbers(width),
        *perceptron(width, vision.positive("intermediate_size"), width),
        *norms(2, width, bias=vision.text("norm_type") != "rms_norm"),
        *numbers(2, width),
    )
    return (
        *numbers(width),
        *patches(vision, width),
        *numbers(grid(vision) + 1, width),
        *times(block, layers),
    )


def _layers(whole: Config, vision: Config) -> int:
    return feature_layers(whole, vision, "select_layer", default=-1)


def shuffled_width(whole: Config, vision: Config) -> int:
    """The width of what pixel shuffle makes of the patches that it takes together."""
    ratio = whole.number("downsample_ratio", 0.5)
    side = int(1 / ratio) if ratio > 0 else 1
    return vision.positive("hidden_size") * side * side


def projector(columns: int, rows: int) -> Tensors:
    """A norm and two layers, whole on every rank."""
    return (*layer_norm(columns), *perceptron(columns, rows, rows, split=False))


def chat(whole: Config) -> Towers:
    """InternVL's chat model and its likes (internvl.py, skyworkr1v.py, h2ovl.py)."""
    vision = part(whole, "vision_config")
    joins = projector(shuffled_width(whole, vision), text_width(whole))
    return seen((*intern_vit(vision, _layers(whole, vision)), *joins), vision)


def nvlm(whole: Config) -> Towers:
    """NVLM-D: more heads than the checkpoint has, a projector as wide as the language model's MLP (nvlm_d.py)."""
    vision, text = part(whole, "vision_config"), text_of(whole)
    columns, inner = shuffled_width(whole, vision), text.positive("intermediate_size")
    joins = (*layer_norm(columns), *perceptron(columns, inner, text_width(whole), bias=False, split=False))
    return seen((*intern_vit(vision, _layers(whole, vision), _NVLM_HEADS), *joins), vision)


def eagle(whole: Config) -> Towers:
    """Eagle 2.5: SigLIP, pixels shuffled, a projector (eagle2_5_vl.py)."""
    vision = part(whole, "vision_config")
    joins = projector(shuffled_width(whole, vision), text_width(whole))
    return seen((*siglip(vision, _layers(whole, vision)), *joins), vision)


def transformers(whole: Config) -> Towers:
    """InternVL as Transformers has it, Intern-S1: attention whole on every rank (interns1_vit.py)."""
    vision = part(whole, "vision_config")
    width = vision.positive("hidden_size")
    attending = (
        *kept(3 * width, width, bias=vision.flag("attention_bias")),
        *kept(width, width),
        *(numbers(2, width) if vision.flag("use_qk_norm") else ()),
    )
    block = (
        *attending,
        *perceptron(width, vision.positive("intermediate_size"), width),
        *norms(2, width, bias=vision.text("norm_type") != "rms_norm"),
        *numbers(2, width),
    )
    positions = grid(vision) + 1 if vision.flag("use_absolute_position_embeddings", default=True) else 0
    tensors = (
        *numbers(width),
        *(numbers(width) if vision.flag("use_mask_token") else ()),
        *patches(vision, width),
        *(numbers(positions, width) if positions else ()),
        *times(block, vision.positive("num_hidden_layers", largest=2048)),
        *projector(shuffled_width(whole, vision), text_width(whole)),
    )
    return seen(tensors, vision)
