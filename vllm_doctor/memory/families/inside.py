"""Language models that stand only inside of multi-modal ones: Molmo's, Aria's, Cosmos 3 Edge's, Compass's."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Split, Tensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.decoder import read_decoder
from vllm_doctor.memory.families.hybrid import built, depth
from vllm_doctor.memory.families.linear_hybrid import read_delta_hybrid
from vllm_doctor.memory.families.parts import (
    Tensors,
    attention,
    embedding,
    experts,
    full,
    linear,
    mlp,
    norm,
    norms,
    plain,
    router,
)
from vllm_doctor.memory.families.styles import STYLES, Style

# Rows of Molmo's embedding beyond its vocabulary (molmo.py ADDITIONAL_VOCAB_SIZE).
_MOLMO_ROWS = 128
# What EmbeddingGemma 2 is cut to where the user names no length (0.32 model_executor/models/config.py).
_EMBEDDING_GEMMA_LENGTH = 8192
# Rows of the merged projection of hyper-connections are padded to so many (qwen4_exp hyperconnection.py).
_INJECTED = 16


def read_molmo(config: Config) -> Architecture:
    """Molmo: intermediate_size counts gate and up, and more embeddings than the head has rows (molmo.py)."""
    style = Style(
        qkv_bias="qkv_bias",
        qk_norm="full" if config.flag("attention_layer_norm") else None,
        tied=config.flag("weight_tying"),
    )
    halved = {**config.values, "intermediate_size": config.positive("intermediate_size") // 2}
    base = read_decoder(Config(halved, config.model_type, config.outer), style)
    rows = config.positive("embedding_size", "vocab_size") + _MOLMO_ROWS
    return replace(base, first=(embedding(rows, base.hidden_size), *base.first[1:]))


def read_aria(config: Config) -> Architecture:
    """Aria: experts in all layers, and shared ones of the same width beside them (aria.py)."""
    return read_decoder(config, Style(experts=_aria_experts, tied=False))


def _aria_experts(config: Config, layers: int) -> moe.Experts | None:
    count = config.positive("moe_num_experts", largest=2**14)
    width = config.positive("intermediate_size")
    shared = config.count("moe_num_shared_experts", default=0) * width
    return moe.Experts(count, config.positive("moe_topk"), width, frozenset(range(layers)), shared=shared)


def read_cosmos3_edge(config: Config) -> Architecture:
    """Cosmos 3 Edge: attention and an MLP without a gate, as Nemotron-H has them (cosmos3_edge.py)."""
    return read_decoder(config, Style(gated=False, mlp_bias="mlp_bias", qkv_bias="attention_bias"))


def read_compass(config: Config) -> Architecture:
    """Cohere Compass: as Command R7B with one norm per layer (cohere_compass.py)."""
    return read_decoder(config, STYLES["Cohere2ForCausalLM"])


def read_molmo2(config: Config) -> Architecture:
    """Molmo 2: rows of its own beyond the vocabulary (molmo2.py Molmo2TextModel)."""
    norms_ = ("head" if config.text("qk_norm_type") == "qwen3" else "full") if config.flag("use_qk_norm") else None
    base = read_decoder(config, Style(qkv_bias="qkv_bias", qk_norm=norms_, tied=config.flag("tie_word_embeddings")))
    rows = config.positive("vocab_size") + config.count("additional_vocab_size", default=128)
    return replace(base, first=(embedding(rows, base.hidden_size), *base.first[1:]))


def read_moondream3(config: Config) -> Architecture:
    """Moondream 3: one norm per layer, temperatures for attention, experts that the ranks share out (moondream3.py)."""
    width, inner = config.positive("dim", "hidden_size", default=2048), config.positive("ff_dim", default=8192)
    layers = config.positive("n_layers", default=24, largest=2048)
    heads = config.positive("n_heads", default=32)
    pairs = config.positive("n_kv_heads", default=heads)
    size = width // heads
    sparse = config.section("moe") or Config({})
    start, count = sparse.count("start_layer", default=4), sparse.positive("n_experts", default=64)
    wide, chosen = sparse.positive("expert_inner_dim", default=1024), sparse.positive("n_experts_per_tok", default=8)
    queries = (heads + 2 * pairs) * size
    attending = (
        *attention(width, heads, pairs, size, qkv_bias=True, out_bias=True),
        plain("self_attn.tau_alpha", heads, split=Split.ROWS),
        plain("self_attn.tau_wq", heads, queries, split=Split.ROWS),
        plain("self_attn.tau_wv", heads, queries, split=Split.ROWS),
        *norms(1, width, bias=True),
    )
    routed = (
        *router(width, count, bias=True),
        plain("mlp.fc1", count * 2 * wide, width, split=Split.ROWS),
        plain("mlp.fc2", count * width, wide, split=Split.ROWS),
    )
    cache = (full(pairs, size),)
    dense = Layer(tensors=(*attending, *mlp(width, inner, gated=False, bias=True)), caches=cache)
    mixed = Layer(tensors=(*attending, *routed), caches=cache)
    named = Config({"vocab_size": 51200, **config.values}, config.model_type, config.outer)
    found = moe.Experts(count, chosen, wide, frozenset(range(start, layers)))
    kinds = [mixed if i >= start else dense for i in range(layers)]
    base = built(
        named,
        kinds,
        width,
        heads=heads,
        kv_heads=pairs,
        head_size=size,
        found=found,
        intermediate=inner,
        final_bias=True,
        tied=False,
    )
    bias = plain("lm_head.bias", base.vocabulary_size, split=Split.VOCABULARY)
    length = config.positive("max_context", "max_position_embeddings", default=4096)
    return replace(base, last=(*base.last, bias), native_max_model_len=length)


def read_ernie_vl(config: Config) -> Architecture:
    """ERNIE 4.5 VL: experts of their own for text and for images, shared ones beside them (ernie45_vl_moe.py)."""
    base = read_decoder(config, STYLES["Ernie4_5ForCausalLM"])
    counts, widths = config.counts("moe_num_experts"), config.counts("moe_intermediate_size")
    starts = config.counts("moe_layer_start_index")
    if len(counts) < 2 or len(widths) < 2 or not starts:
        raise ConfigError("moe_num_experts or moe_intermediate_size is no pair of numbers")
    hidden, layers, ends = base.hidden_size, len(base.layers), config.counts("moe_layer_end_index")
    shared = config.count("moe_num_shared_experts", default=0) * widths[0]
    routed = tuple(
        t
        for count, width in zip(counts[:2], widths[:2], strict=True)
        for t in (*router(hidden, count, element_bytes=4), *experts(hidden, width, count))
    )
    mixed = (
        *routed,
        plain("mlp.e_score_correction_bias", 2, max(counts[:2]), element_bytes=4),
        *(mlp(hidden, shared, prefix="mlp.shared_experts.") if shared else ()),
    )
    dense = base.kinds[0]
    kept = tuple(t for t in dense.tensors if not t.name.startswith("mlp."))
    last = min(layers - 1, max(ends)) if ends else layers - 1
    number = counts[0]
    return replace(
        base,
        kinds=(dense, Layer(tensors=(*kept, *mixed), caches=dense.caches)),
        layers=tuple(1 if min(starts) <= i <= last else 0 for i in range(layers)),
        experts=number,
        experts_per_token=moe.per_token_of(config),
        expert_intermediate=widths[0],
    )


def _text_encoder(config: Config, last: Tensors, *, causal: bool) -> Architecture:
    """The text side of CLIP and SigLIP: positions are a table as the words are."""
    hidden, feed = config.positive("hidden_size"), config.positive("intermediate_size")
    heads = config.positive("num_attention_heads")
    size = hidden // heads
    tensors = (
        *attention(hidden, heads, heads, size, qkv_bias=True, out_bias=True),
        *mlp(hidden, feed, gated=False, bias=True),
        *norms(2, hidden, bias=True),
    )
    layer = Layer(tensors=tensors, caches=(full(heads, size),) if causal else ())
    layers = [layer] * depth(config)
    base = built(config, layers, hidden, heads=heads, kv_heads=heads, head_size=size, intermediate=feed, tied=True)
    positions = embedding(config.positive("max_position_embeddings"), hidden, "model.position_embedding")
    final = norm("model.final_layer_norm", hidden, bias=True)
    return replace(base, first=(*base.first, positions), last=(*final, *last), is_pooling=True)


def read_clip(config: Config) -> Architecture:
    """CLIP's text side, which keeps a cache as it looks back only (clip.py CLIPTextTransformer)."""
    rows = config.outer.get("projection_dim")
    width = Config(config.outer).positive("projection_dim") if rows is not None else config.positive("projection_dim")
    projection = linear("text_projection", width, config.positive("hidden_size"), Split.WHOLE)
    return _text_encoder(config, projection, causal=True)


def read_siglip(config: Config) -> Architecture:
    """SigLIP's text side (siglip.py SiglipTextTransformer)."""
    hidden = config.positive("hidden_size")
    rows = config.positive("projection_size", default=hidden)
    return _text_encoder(config, linear("head", rows, hidden, Split.WHOLE, bias=True), causal=False)


def read_embedding_gemma2(config: Config) -> Architecture:
    """EmbeddingGemma 2: Gemma 4's layers with inputs per layer and without caches (embedding_gemma2.py)."""
    layers, hidden, heads = depth(config), config.positive("hidden_size"), config.positive("num_attention_heads")
    size, pairs, feed = (config.positive(k) for k in ("head_dim", "num_key_value_heads", "intermediate_size"))
    inputs, out = config.positive("hidden_size_per_layer_input"), config.positive("embedding_dim")
    special = config.values.get("per_layer_config")
    named = special.items() if isinstance(special, dict) else ()
    own = {int(k): Config(v) for k, v in named if k.isdecimal() and len(k) < 6 and isinstance(v, dict)}

    def layer(i: int) -> Layer:
        found = own.get(i, Config({}))
        head, count = found.positive("head_dim", default=size), found.positive("num_key_value_heads", default=pairs)
        tensors = (
            *attention(hidden, heads, count, head),
            *norms(2, head),
            *mlp(hidden, feed),
            *linear("per_layer_input_gate", inputs, hidden, Split.WHOLE),
            *linear("per_layer_projection", hidden, inputs, Split.WHOLE),
            *norms(5, hidden),
        )
        return Layer(tensors=tensors)

    kinds = [layer(i) for i in range(layers)]
    base = built(config, kinds, hidden, heads=heads, kv_heads=pairs, head_size=size, intermediate=feed, tied=True)
    joins = (
        *linear("model.per_layer_model_projection", layers * inputs, hidden, Split.ROWS),
        *norm("model.per_layer_projection_norm", inputs),
        *linear("model.embedding_projection", out, hidden, Split.WHOLE),
    )
    return replace(base, first=(*base.first, *joins), is_pooling=True, native_max_model_len=_EMBEDDING_GEMMA_LENGTH)


def read_qwen4(config: Config) -> Architecture:
    """Qwen4-Exp without tables of n-grams and indexers: Qwen3.5's mixers between hyper-connections (qwen4_exp)."""
    if config.get("ple_layer_ids") or config.optional("indexer_n_heads"):
        raise ConfigError("the tables of n-grams and the indexers of Qwen4-Exp are not known")
    base = read_delta_hybrid(config)
    hidden, lanes, rank = base.hidden_size, config.positive("hc_count"), config.positive("hc_lowrank")
    wide = hidden * lanes
    mixing = (*norm("hc_norm", wide), *linear("mix_up", wide, rank, Split.WHOLE))
    injected = linear("mix_down_block_inject", -(-(rank + lanes) // _INJECTED) * _INJECTED, wide, Split.WHOLE)
    last = (*mixing, *linear("mix_down", rank, wide, Split.WHOLE))

    def connected(kind: Layer, more: Tensors = ()) -> Layer:
        own = tuple(t for t in kind.tensors if not t.name.startswith("norm"))
        return Layer(tensors=(*own, *(*mixing, *injected) * 2, *more), caches=kind.caches)

    # The mixer behind the last layer stands on its stage alone, lm_head on all.
    kinds = (*(connected(k) for k in base.kinds), connected(base.kinds[base.layers[-1]], last))
    heads = tuple(t for t in base.last if t.name == "lm_head")
    return replace(base, kinds=kinds, layers=(*base.layers[:-1], len(kinds) - 1), last=heads)


def read_mobius(config: Config) -> Architecture:
    """Intern-S2 Mobius: Qwen3.5's layers around few blocks of experts, which all layers share (interns2_mobius.py)."""
    base = read_delta_hybrid(config)
    blocks = config.positive("num_blocks", largest=LARGEST_LAYERS)
    scales = (plain("layer_scales", 2, base.hidden_size),) if config.flag("layer_scale") else ()
    routed = tuple(t for t in base.kinds[0].tensors if _is_routed(t))
    kinds = tuple(
        Layer(tensors=(*(t for t in k.tensors if not _is_routed(t)), *scales), caches=k.caches) for k in base.kinds
    )
    return replace(base, kinds=kinds, first=(*base.first, *routed * blocks))


def _is_routed(tensor: Tensor) -> bool:
    return tensor.name.startswith(("mlp.experts.", "mlp.gate"))
