"""Llama 3.2 Vision: a Llama some of whose layers attend to what a vision encoder sees (mllama.py, to 0.10.1)."""

from typing import Any

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config
from vllm_doctor.memory.facts import Architecture, Layer, Split
from vllm_doctor.memory.families.decoder import shape_of
from vllm_doctor.memory.families.parts import (
    Tensors,
    attention,
    embedding,
    full,
    head,
    linear,
    mlp,
    norm,
    norms,
    plain,
)

# Rows for the image token and its kin, which the head does not have (MllamaTextModel).
_SPECIAL_TOKENS = 8


def read_mllama(config: Config) -> Architecture:
    """The language model and the encoder; every layer has a place in the cache, those for images as well."""
    shape = shape_of(config)
    cross = frozenset(config.counts("cross_attention_layers"))
    attending = attention(shape.hidden, shape.heads, shape.kv_heads, shape.head_size)
    feed = (*mlp(shape.hidden, shape.intermediate), *norms(2, shape.hidden))
    gates = (plain("cross_attn_attn_gate", 1), plain("cross_attn_mlp_gate", 1))
    looking = (*attending, *norm("q_norm", shape.head_size), *norm("k_norm", shape.head_size), *gates, *feed)
    caches = (full(shape.kv_heads, shape.head_size),)
    vision = config.outer.get("vision_config")
    encoder = Config(vision if isinstance(vision, dict) else {})
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=shape.hidden,
        vocabulary_size=shape.vocabulary,
        layers=tuple(int(i in cross) for i in range(shape.layers)),
        kinds=(Layer(tensors=(*attending, *feed), caches=caches), Layer(tensors=looking, caches=caches)),
        first=(embedding(shape.vocabulary + _SPECIAL_TOKENS, shape.hidden),),
        last=(*norm("model.norm", shape.hidden), head(shape.vocabulary, shape.hidden)),
        attention_heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        largest_intermediate=shape.intermediate,
        is_multimodal=True,
        media=("image",),
        **_encoder(encoder, shape.hidden),
    )


def _encoder(config: Config, hidden: int) -> dict[str, Any]:
    """The vision encoder: local layers, global ones with gates, positions of tiles, and the projector."""
    width = config.positive("hidden_size")
    own = config.positive("num_hidden_layers", largest=LARGEST_LAYERS)
    overall = config.positive("num_global_layers", largest=LARGEST_LAYERS)
    heads, tiles = config.positive("attention_heads"), config.positive("max_num_tiles")
    patch, image = config.positive("patch_size"), config.positive("image_size")
    # The aspect ratios in which an image may be cut into as many tiles, and none of them.
    ratios = 1 + sum(1 for high in range(1, tiles + 1) for wide in range(1, tiles + 1) if high * wide <= tiles)
    patches = (image // patch) ** 2 + 1
    layer = (
        *attention(width, heads, heads, width // heads),
        *mlp(width, config.positive("intermediate_size"), gated=False, bias=True),
        *norms(2, width, bias=True),
    )
    seen = config.positive("vision_output_dim")
    towers: Tensors = (
        plain("patch_embedding", width, 3 * patch * patch),
        plain("class_embedding", width),
        plain("gated_positional_embedding", patches, width),
        plain("gated_positional_embedding.tile_embedding", ratios, tiles * patches * width),
        plain("pre_tile_positional_embedding", ratios, tiles * width),
        plain("post_tile_positional_embedding", ratios, tiles * width),
        plain("gates", 3 + 2 * overall),
        *norms(2, width, bias=True),
        *layer * (own + overall),
        *linear("multi_modal_projector", hidden, seen, Split.ROWS, bias=True),
    )
    return {"towers": towers, "vision_hidden_size": width, "vision_layers": own + overall}
