"""Drafts that propose a block of tokens at once: DFlash, DSpark; and Gemma 4's assistant, which has no cache."""

from collections.abc import Callable

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, CacheKind, Layer, Split
from vllm_doctor.memory.families.decoder import shape_of
from vllm_doctor.memory.families.draft_parts import MOST, draft_vocabulary, drafted, grown, own_head
from vllm_doctor.memory.families.eagle import llama_layer
from vllm_doctor.memory.families.latent import latent_attention, latent_cache
from vllm_doctor.memory.families.parts import Tensors, full, head, linear, mlp, norm, norms, plain
from vllm_doctor.memory.families.singles import read_gemma4, read_laguna
from vllm_doctor.memory.families.windows import SLIDING

# Rows of an embedding that is whole on every rank are padded to so many (vocab_parallel_embedding.py).
_PADDED = 64
# configuration_gemma4_assistant.py, as far as vLLM reads it (gemma4_mtp.py).
_CENTROIDS = 2048


def read_dflash(config: Config, target: Architecture) -> Architecture:
    """DFlash: Qwen3's layers that read all chosen states of the target at once (qwen3_dflash.py)."""
    shape = shape_of(config)
    section = config.section("dflash_config") or config
    one = llama_layer(config, normed=True)
    types = config.words("layer_types", shape.layers)
    slides = types is not None and any(t in SLIDING for t in types)
    every = section.flag("use_swa") and not slides
    window = section.optional("swa_window_size") or config.optional("sliding_window")

    def layer(i: int) -> Layer:
        sliding = every or (slides and types is not None and types[i] in SLIDING)
        return replace(one, caches=(full(shape.kv_heads, shape.head_size, window=window if sliding else None),))

    wide = (_states(config) or shape.layers) * (config.optional("target_hidden_size") or shape.hidden)
    fused = (
        plain("mask_embedding", shape.hidden),
        *linear("fc", shape.hidden, wide, Split.WHOLE),
        *norm("hidden_norm", shape.hidden),
    )
    first, *others = (layer(i) for i in range(shape.layers))
    return drafted(
        config, target, (grown(first, *fused), *others), shape.hidden, own_head(config, shape.hidden, target)
    )


def _states(config: Config) -> int:
    """States of the target that the draft reads, 0 where the config names none (0.32 eagle3_utils.py)."""
    section = config.section("dflash_config") or Config({})
    lists = (
        config.counts("eagle_aux_hidden_state_layer_ids"),
        section.counts("target_layer_ids"),
        config.counts("dspark_target_layer_ids"),
        config.counts("target_layer_ids"),
        section.counts("layer_ids"),
    )
    return next((len(found) for found in lists if found), 0)


def read_dflash2(config: Config, target: Architecture) -> Architecture:
    """DFlash 2: two grouped convolutions in every layer, and a selector of candidates (qwen3_dflash2.py)."""
    base, section = read_dflash(config, target), config.section("dflash_config") or config
    rows, rank = config.positive("vocab_size"), section.positive("selector_rank")
    selector = (
        plain("candidate_selector.codebooks", 2 * rows, rank),
        plain("candidate_selector.hidden_projection", rank, base.hidden_size),
    )
    return with_more(base, convolutions(section, base.hidden_size), selector)


def convolutions(section: Config, hidden: int) -> Tensors:
    """The two of a layer: their kernels, and what makes one for every position."""
    taps, group = section.positive("conv_kernel_size"), section.positive("conv_group_size")
    if hidden % group:
        raise ConfigError(f"conv_group_size {group} does not divide the hidden size {hidden}, which vLLM refuses")
    one = (
        plain("conv.base_kernel", 2 * taps, hidden),
        *linear("conv.kernel_projection", 2 * taps * (hidden // group), hidden, Split.WHOLE),
    )
    return one * 2


def with_more(base: Architecture, each: Tensors, once: Tensors) -> Architecture:
    """The draft with more tensors in every layer, and some beside them."""
    kinds = tuple(grown(k, *each) for k in base.kinds)
    return replace(base, kinds=kinds, last=(*base.last, *once))


def read_dspark(config: Config, target: Architecture) -> Architecture:
    """DSpark on Qwen3's layers: DFlash with a chain over the words and a head of confidence (qwen3_dspark.py)."""
    base = read_dflash(config, target)
    rows = draft_vocabulary(config)
    # Only a smaller vocabulary than the target's has a map of words.
    kept = tuple(t for t in base.last if t.name != "draft_id_to_target_id" or rows < target.vocabulary_size)
    return with_more(replace(base, last=kept), (), _chain(config, base.hidden_size))


def _chain(config: Config, hidden: int) -> Tensors:
    """Two tables that every rank holds whole, and what tells how sure the draft is."""
    words, rank = config.positive("vocab_size"), config.positive("markov_rank")
    tables = (
        plain("markov_head.markov_w1", words, rank),
        plain("markov_head.markov_w2", -(-draft_vocabulary(config) // _PADDED) * _PADDED, rank),
    )
    if not config.flag("enable_confidence_head"):
        return tables
    inputs = hidden + (rank if config.flag("confidence_head_with_markov") else 0)
    proj = (plain("confidence_head.proj", 1, inputs), plain("confidence_head.proj.bias", 1))
    return (*tables, *(replace(t, element_bytes=4) for t in proj))


def read_k3_dspark(config: Config, target: Architecture) -> Architecture:
    """DSpark on Kimi K3's latent attention, with dense MLPs; its words and head are the target's (dspark_mla.py)."""
    hidden, layers = config.positive("hidden_size"), config.positive("num_hidden_layers", largest=MOST)
    if draft_vocabulary(config) != config.positive("vocab_size"):
        raise ConfigError("draft_vocab_size is not vocab_size, which vLLM refuses of a draft that shares its head")
    states, heads = config.positive("num_target_layers", largest=LARGEST_LAYERS), config.positive("num_attention_heads")
    config.positive("q_lora_rank")
    read = config.positive("target_hidden_size")
    cache = latent_cache(config)
    one = Layer(
        tensors=(
            *latent_attention(config, hidden, heads),
            *mlp(hidden, config.positive("intermediate_size")),
            *norms(2, hidden),
        ),
        caches=(cache,),
    )
    once = (
        *linear("context_proj", hidden, states * read, Split.WHOLE),
        *norm("context_norm", hidden),
        *linear("context_kv_proj", layers * cache.head_size, hidden, Split.WHOLE),
    )
    last = (*norm("final_norm", hidden), *_chain(config, hidden))
    found = drafted(config, target, (grown(one, *once), *(one,) * (layers - 1)), hidden, last)
    sizes = config.positive("qk_nope_head_dim") + config.positive("v_head_dim")
    absorbed = heads * sizes * config.positive("kv_lora_rank")
    return replace(found, first=(), borrows=(), absorbed_elements=absorbed)


def read_laguna_dflash(config: Config, target: Architecture) -> Architecture:
    """DFlash on Laguna's layers, which keep all of the context (laguna_dflash.py)."""
    types = config.get("layer_types")
    if not isinstance(types, list) or not types or any(t != types[0] for t in types):
        raise ConfigError("layer_types are not all the same, which vLLM refuses of a draft of Laguna")
    base, states = read_laguna(config), _states(config)
    if not states:
        raise ConfigError("dflash_config.target_layer_ids is missing, and the projection depends on it")
    if draft_vocabulary(config) != target.vocabulary_size:
        raise ConfigError("draft_vocab_size is not the target's vocabulary, which vLLM refuses of a draft of Laguna")
    hidden, read = base.hidden_size, target.hidden_size
    fused = (
        *norms(states, read),
        *linear("fc", hidden, states * read, Split.WHOLE),
        *norm("hidden_norm", hidden),
    )
    cache = (full(base.kv_heads, base.head_size),)
    first, *others = (replace(base.kinds[i], caches=cache) for i in base.layers)
    last = (*norm("norm", hidden), head(target.vocabulary_size, hidden))
    found = drafted(config, target, (grown(first, *fused), *others), hidden, last)
    return replace(found, borrows=("embedding", "head"), approximations=())


def _gemma4(config: Config, change: Callable[[Layer], Layer]) -> tuple[Architecture, tuple[Layer, ...]]:
    """Gemma 4's layers by the numbers of a draft; raises ConfigError for inputs per layer, which drafts have not."""
    if config.count("hidden_size_per_layer_input", default=0):
        raise ConfigError("hidden_size_per_layer_input: a draft of Gemma 4 has no inputs per layer")
    base = read_gemma4(Config({**config.values, "num_kv_shared_layers": 0}, config.model_type, config.outer))
    return base, tuple(change(base.kinds[i]) for i in base.layers)


def _without_keys(layer: Layer) -> Layer:
    names = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.k_norm")
    return Layer(tensors=tuple(t for t in layer.tensors if t.name not in names))


def read_gemma4_assistant(config: Config, target: Architecture) -> Architecture:
    """Gemma 4's assistant: layers of queries only, which look into the target's caches (gemma4_mtp.py)."""
    text = config.section("text_config") or config
    base, (first, *others) = _gemma4(text, _without_keys)
    hidden, rows = base.hidden_size, text.positive("vocab_size")
    backbone = config.positive("backbone_hidden_size", default=hidden)
    joins = (
        *linear("pre_projection", hidden, 2 * backbone, Split.ROWS),
        *linear("post_projection", backbone, hidden, Split.COLUMNS),
    )
    count = config.positive("num_centroids", default=_CENTROIDS)
    centroids = (plain("masked_embedding.centroids", count, hidden),) if config.flag("use_ordered_embeddings") else ()
    last = (*norm("norm", hidden), *centroids, head(rows, hidden))
    found = drafted(text, target, (grown(first, *joins), *others), hidden, last)
    # Its embedding is replaced by the target's; its head has the width of the draft.
    return replace(found, first=(), borrows=(), approximations=())


def read_gemma4_dspark(config: Config, target: Architecture) -> Architecture:
    """DSpark on Gemma 4's layers, with an embedding and a head of its own (gemma4_dspark.py)."""
    same = config.flag("attention_k_eq_v")

    def own(layer: Layer) -> Layer:
        is_full = any(c.kind is CacheKind.FULL for c in layer.caches)
        dropped = "self_attn.v_proj" if same and is_full else ""
        return Layer(tensors=tuple(t for t in layer.tensors if t.name != dropped), caches=layer.caches)

    base, (first, *others) = _gemma4(config, own)
    hidden, rows = base.hidden_size, config.positive("vocab_size")
    states = _states(config)
    if not states:
        raise ConfigError("target_layer_ids is missing, and the projection depends on it")
    fused = (*linear("fc", hidden, states * hidden, Split.WHOLE), *norm("hidden_norm", hidden))
    last = (*norm("norm", hidden), head(rows, hidden), *_chain(config, hidden))
    found = drafted(config, target, (grown(first, *fused), *others), hidden, last)
    return replace(found, vocabulary_size=rows, borrows=(), approximations=())
