"""What all drafts are built with: their layers behind an embedding, before a head that they may share."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.facts import Architecture, CacheKind, Layer, Split, Tensor
from vllm_doctor.memory.families.parts import embedding, head, norm, plain

# No draft has more heads, features of the target or layers of its own.
MOST = 64

# 0.32 v1/spec_decode/llm_base_proposer.py _maybe_share_lm_head compares the numbers of both.
_SAME_HEAD = "whether the draft has an lm_head of its own is in its weights; the target's was taken"


def drafted(
    config: Config, target: Architecture, layers: tuple[Layer, ...], hidden: int, last: tuple[Tensor, ...]
) -> Architecture:
    """A draft out of its layers; `last` holds its norm and its head, where it has one."""
    order = list(dict.fromkeys(layers))
    embeds = ("embedding",) if hidden == target.hidden_size else ()
    heads = [t for t in last if t.split is Split.VOCABULARY]
    same = not heads or (hidden == target.hidden_size and heads[0].rows == target.vocabulary_size)
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype=target.dtype,
        hidden_size=hidden,
        vocabulary_size=target.vocabulary_size,
        layers=tuple(order.index(layer) for layer in layers),
        kinds=tuple(order),
        first=(embedding(target.vocabulary_size, hidden),),
        last=last,
        absorbed_elements=target.absorbed_elements if _is_latent(layers) else 0,
        borrows=(*embeds, *(("head",) if same else ())),
        approximations=(_SAME_HEAD,) if heads and same else (),
    )


def _is_latent(layers: tuple[Layer, ...]) -> bool:
    return any(cache.kind is CacheKind.LATENT for layer in layers for cache in layer.caches)


def draft_vocabulary(config: Config) -> int:
    """The words that the draft knows."""
    return config.optional("draft_vocab_size") or config.positive("vocab_size")


def own_head(config: Config, hidden: int, target: Architecture) -> tuple[Tensor, ...]:
    """The draft's lm_head, with a map of words where its vocabulary is another one than the target's."""
    rows = draft_vocabulary(config)
    words = () if rows == target.vocabulary_size else (plain("draft_id_to_target_id", rows, element_bytes=8),)
    return (*norm("norm", hidden), head(rows, hidden), *words)


def grown(layer: Layer, *tensors: Tensor) -> Layer:
    """The layer with tensors more."""
    return Layer(tensors=(*layer.tensors, *tensors), caches=layer.caches)
