"""Encoders for embeddings and reranking: BERT, RoBERTa, ModernBERT, Nomic, GTE, Jina; no layer of them has a cache."""

from collections.abc import Sequence

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Split, Tensor
from vllm_doctor.memory.families.parts import Tensors, attention, embedding, linear, mlp, norm, norms, plain, router


def read_bert(config: Config) -> Architecture:
    """BERT, RoBERTa and XLM-R (bert.py, roberta.py): positions and token types are tables as the words are."""
    hidden, feed = config.positive("hidden_size"), config.positive("intermediate_size")
    heads = _heads(config, hidden)
    layer: Tensors = (
        *attention(hidden, heads, heads, hidden // heads, qkv_bias=True, out_bias=True),
        *mlp(hidden, feed, gated=False, bias=True),
        *norms(2, hidden, bias=True),
    )
    first = (
        embedding(config.positive("vocab_size"), hidden),
        embedding(config.positive("max_position_embeddings"), hidden, "position_embeddings"),
        *_types(config, hidden),
        *norm("embeddings.LayerNorm", hidden, bias=True),
    )
    return _encoder(config, [layer] * _depth(config), hidden, first, feed)


def read_roberta(config: Config) -> Architecture:
    """XLM-R and RoBERTa for embeddings, and Jina's with rotary positions (roberta.py _build_model)."""
    if config.text("position_embedding_type") in (None, "absolute"):
        return read_bert(config)
    return _rotary(config, gated=False, bias=config.flag("bias", default=True))


def read_nomic(config: Config) -> Architecture:
    """Nomic's BERT, whose version 2 has experts in every second layer (bert_with_rope.py NomicBertModel)."""
    gated = config.text("activation_function") == "swiglu"
    return _rotary(config, gated=gated, bias=config.flag("qkv_proj_bias"))


def read_gte(config: Config) -> Architecture:
    """GTE and Arctic-Embed 2: a gated MLP, of which the way down alone has a bias (bert_with_rope.py GteNewModel)."""
    return _rotary(config, gated=True, bias=True, up_bias=False)


def _rotary(config: Config, *, gated: bool, bias: bool, up_bias: bool | None = None) -> Architecture:
    """BERT with rotary positions (bert_with_rope.py BertWithRope)."""
    hidden = config.positive("hidden_size", "n_embd")
    heads, feed = _heads(config, hidden), config.positive("intermediate_size", "n_inner")
    up_bias = bias if up_bias is None else up_bias
    outside: Tensors = (
        *attention(hidden, heads, heads, hidden // heads, qkv_bias=bias, out_bias=bias),
        *norms(2, hidden, bias=True),
    )
    down = linear("mlp.down_proj", hidden, feed, Split.COLUMNS, bias=bias)
    up = tuple(
        t
        for side in (("gate", "up") if gated else ("up",))
        for t in linear(f"mlp.{side}_proj", feed, hidden, Split.ROWS, bias=up_bias)
    )
    routed = _routed(config, hidden, feed)
    every = config.count("moe_every_n_layers", default=0)
    layers = [(*outside, *(routed if every and i % every == 1 else (*up, *down))) for i in range(_depth(config))]
    first = (
        embedding(config.positive("vocab_size"), hidden),
        *_types(config, hidden),
        *norm("embeddings.LayerNorm", hidden, bias=True),
    )
    return _encoder(config, layers, hidden, first, feed)


def _routed(config: Config, hidden: int, feed: int) -> Tensors:
    """Nomic's experts: none has a gate, and all share one bias (bert_with_rope.py NomicMoE)."""
    if not config.count("moe_every_n_layers", default=0):
        return ()
    count = config.positive("num_experts", largest=LARGEST_EXPERTS)
    return (
        *router(hidden, count),
        plain("mlp.w1", feed, hidden, Split.EXPERT_ROWS, copies=count),
        plain("mlp.w2", hidden, feed, Split.EXPERT_COLUMNS, copies=count),
        plain("mlp.bias", hidden),
    )


def read_modern_bert(config: Config) -> Architecture:
    """ModernBERT: a gated MLP, no norm before the first attention (modernbert.py)."""
    hidden, feed = config.positive("hidden_size"), config.positive("intermediate_size")
    heads, bias = _heads(config, hidden), config.flag("norm_bias")
    attending, fed = config.flag("attention_bias"), config.flag("mlp_bias")
    layer: Tensors = (
        *attention(hidden, heads, heads, hidden // heads, qkv_bias=attending, out_bias=attending),
        *mlp(hidden, feed, bias=fed),
        *norm("mlp_norm", hidden, bias=bias),
    )
    later = (*layer, *norm("attn_norm", hidden, bias=bias))
    first = (embedding(config.positive("vocab_size"), hidden), *norm("embeddings.norm", hidden, bias=bias))
    layers = [layer, *[later] * (_depth(config) - 1)]
    return _encoder(config, layers, hidden, first, feed, norm("final_norm", hidden, bias=bias))


def _encoder(
    config: Config, layers: Sequence[Tensors], hidden: int, first: tuple[Tensor, ...], feed: int, last: Tensors = ()
) -> Architecture:
    order = list(dict.fromkeys(layers))
    heads = _heads(config, hidden)
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=hidden,
        vocabulary_size=config.positive("vocab_size"),
        layers=tuple(order.index(layer) for layer in layers),
        kinds=tuple(Layer(tensors=tensors) for tensors in order),
        first=first,
        last=last,
        attention_heads=heads,
        kv_heads=heads,
        head_size=hidden // heads,
        largest_intermediate=feed,
        is_pooling=True,
    )


def _heads(config: Config, hidden: int) -> int:
    heads = config.positive("num_attention_heads", "n_head")
    if hidden % heads:
        raise ConfigError(f"hidden_size {hidden} is no multiple of {heads} attention heads")
    return heads


def _depth(config: Config) -> int:
    return config.positive("num_hidden_layers", "n_layer", largest=LARGEST_LAYERS)


def _types(config: Config, hidden: int) -> Tensors:
    """The table of token types, padded to 64 rows as every vocabulary is; none where there are no types."""
    rows = config.count("type_vocab_size", default=2)
    return (embedding(rows, hidden, "token_type_embeddings"),) if rows else ()
