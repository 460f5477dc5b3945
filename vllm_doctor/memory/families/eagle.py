"""Drafts of one or a few layers that read the target's hidden states: EAGLE, EAGLE 3, Medusa."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Split
from vllm_doctor.memory.families.decoder import qk_norms, read_decoder, shape_of
from vllm_doctor.memory.families.draft_parts import MOST, draft_vocabulary, drafted, grown, own_head
from vllm_doctor.memory.families.latent import latent_attention, latent_cache, read_deepseek, read_latent
from vllm_doctor.memory.families.parts import Tensors, attention, full, head, linear, mlp, norm, norms, plain
from vllm_doctor.memory.families.styles import STYLES

# Every so many layers of Llama 4 one has no positions, and looks at the whole context (configuration_llama4.py).
_WITHOUT_POSITIONS = 4
# The projections of latent attention that read the layer's input.
_INPUTS = ("self_attn.q_a_proj", "self_attn.q_proj", "self_attn.kv_a_proj_with_mqa")


def read_eagle(config: Config, target: Architecture) -> Architecture:
    """EAGLE on Llama's layers: the first without its norm, one projection, no norm at the end (llama_eagle.py)."""
    shape = shape_of(config)
    one = llama_layer(config)
    first = tuple(t for t in one.tensors if t.name != "norm0")
    fc = linear("fc", shape.hidden, 2 * shape.hidden, Split.WHOLE)
    layers = (Layer(tensors=(*first, *fc), caches=one.caches), *(one,) * (shape.layers - 1))
    return drafted(config, target, layers, shape.hidden, ())


def read_eagle_mistral(config: Config, target: Architecture) -> Architecture:
    """EAGLE on Mistral's layers: a norm at the end, and a projection divided by columns (mistral_eagle.py)."""
    shape = shape_of(config)
    one = llama_layer(config)
    fc = linear("fc", shape.hidden, 2 * shape.hidden, Split.COLUMNS)
    layers = (Layer(tensors=(*one.tensors, *fc), caches=one.caches), *(one,) * (shape.layers - 1))
    return drafted(config, target, layers, shape.hidden, norm("norm", shape.hidden))


def llama_layer(config: Config, inputs: int | None = None, *, normed: bool = False) -> Layer:
    """A layer of Llama or Qwen3, whose queries, keys and values may read more than the hidden state."""
    shape = shape_of(config)
    bias = config.flag("attention_bias")
    projections = attention(
        inputs or shape.hidden, shape.heads, shape.kv_heads, shape.head_size, qkv_bias=bias, out_rows=shape.hidden
    )
    tensors = (
        *projections,
        *(qk_norms(config, "head", shape) if normed else ()),
        *mlp(shape.hidden, shape.intermediate, bias=config.flag("mlp_bias")),
        *norms(2, shape.hidden),
    )
    return Layer(tensors=tensors, caches=(full(shape.kv_heads, shape.head_size),))


def aux_states(config: Config) -> int:
    """Hidden states of the target that the draft reads: 3 where the config names no layers."""
    found = config.optional("num_aux_hidden_states", "num_aux_layers", largest=MOST)
    section = config.section("eagle_config")
    listed = section.counts("eagle_aux_hidden_state_layer_ids") if section is not None else ()
    return found or len(listed or config.counts("eagle_aux_hidden_state_layer_ids")) or 3


def read_eagle3(config: Config, target: Architecture) -> Architecture:
    """EAGLE 3 and P-EAGLE: the first layer reads twice the width (llama_eagle3.py, qwen3_eagle3.py)."""
    shape = shape_of(config)
    normed = config.text("model_type") == "qwen3" and "Qwen3" in named(config)
    first, later = (llama_layer(config, n * shape.hidden, normed=normed) for n in (2, 1))
    section = config.section("eagle_config") or config
    fused: Tensors = ()
    if section.flag("use_aux_hidden_state", default=True):
        count = aux_states(config)
        wide = count * (config.optional("target_hidden_size") or shape.hidden)
        before = norm("input_norm", wide) if section.flag("norm_before_fc") or config.flag("norm_before_fc") else ()
        each = norms(count, wide // count) if config.flag("fc_norm") else ()
        fused = (*before, *each, *linear("fc", shape.hidden, wide, Split.WHOLE))
    own = norm("hidden_norm", shape.hidden)
    layers = (
        Layer(tensors=(*first.tensors, *own, *fused), caches=first.caches),
        *(Layer(tensors=(*later.tensors, *own), caches=later.caches),) * (shape.layers - 1),
    )
    return drafted(config, target, layers, shape.hidden, own_head(config, shape.hidden, target))


def read_eagle_cohere(config: Config, target: Architecture) -> Architecture:
    """EAGLE on Command R7B's layers: a bias on the projection, a norm at the end, no head of its own (cohere_eagle.py).

    Raises ConfigError for a config without `layer_types`, which the layers look into.
    """
    if config.get("layer_types") is None and config.model_type != "cohere2":
        raise ConfigError("layer_types is missing, and vLLM's draft for Cohere's models looks into it")
    base = read_decoder(config, STYLES["Cohere2ForCausalLM"])
    first, *others = (base.kinds[i] for i in base.layers)
    fc = linear("fc", base.hidden_size, 2 * base.hidden_size, Split.WHOLE, bias=True)
    found = drafted(config, target, (grown(first, *fc), *others), base.hidden_size, norm("norm", base.hidden_size))
    return replace(found, borrows=("embedding", "head"))


def read_eagle_llama4(config: Config, target: Architecture) -> Architecture:
    """EAGLE on Llama 4's layers without experts (llama4_eagle.py).

    Raises ConfigError for one with experts, which vLLM refuses.
    """
    shape = shape_of(config)
    listed = config.counts("moe_layers")
    if listed or (config.get("moe_layers") is None and config.count("interleave_moe_layer_step", default=1)):
        raise ConfigError("moe_layers names layers with experts, which a draft of Llama 4 may not have")
    turned = config.counts("no_rope_layers") or tuple((i + 1) % _WITHOUT_POSITIONS for i in range(shape.layers))
    types = ["chunked_attention" if i < len(turned) and turned[i] else "full_attention" for i in range(shape.layers)]
    values = {**config.values, "layer_types": types}
    base = read_decoder(Config(values, config.model_type), STYLES["Llama4ForCausalLM"]._replace(experts=None))
    first, *others = (base.kinds[i] for i in base.layers)
    fc = plain("fc", shape.hidden, 2 * shape.hidden)
    last = (*norm("norm", shape.hidden), head(draft_vocabulary(config), shape.hidden))
    return drafted(config, target, (grown(first, fc), *others), shape.hidden, last)


def read_eagle_minicpm(config: Config, target: Architecture) -> Architecture:
    """EAGLE on MiniCPM's layers: norms before the projection and one at the end (minicpm_eagle.py)."""
    if config.count("num_experts", default=0):
        raise ConfigError("a draft of MiniCPM with experts is not known")
    hidden = config.positive("hidden_size")
    base = read_decoder(config, STYLES["MiniCPMForCausalLM"])
    first, *others = (base.kinds[i] for i in base.layers)
    more = (*norms(2, hidden), plain("fc", hidden, 2 * hidden))
    last = (*norm("norm", hidden), head(config.positive("vocab_size"), hidden))
    return drafted(config, target, (grown(first, *more), *others), hidden, last)


def read_eagle_deepseek(config: Config, target: Architecture) -> Architecture:
    """EAGLE on DeepSeek's layers, of the kind that numbers after the target's have (deepseek_eagle.py)."""
    own, hidden = config.positive("num_hidden_layers", largest=MOST), config.positive("hidden_size")
    longer = {**config.values, "num_hidden_layers": len(target.layers) + own}
    base = read_latent(Config(longer, config.model_type))
    first, *others = (base.kinds[i] for i in base.layers[-own:])
    more = (*norms(3, hidden), plain("fc", hidden, 2 * hidden))
    last = (head(config.positive("vocab_size"), hidden),)
    found = drafted(config, target, (grown(first, *more), *others), hidden, last)
    return replace(found, absorbed_elements=base.absorbed_elements)


def read_eagle_mistral_large(config: Config, target: Architecture) -> Architecture:
    """EAGLE on Mistral Large 3's layers: a projection divided by columns (mistral_large_3_eagle.py)."""
    base = read_deepseek(config)
    hidden = base.hidden_size
    first, *others = (base.kinds[i] for i in base.layers)
    fc = linear("fc", hidden, 2 * hidden, Split.COLUMNS)
    found = drafted(config, target, (grown(first, *fc), *others), hidden, base.last)
    return replace(found, absorbed_elements=base.absorbed_elements)


def read_eagle3_deepseek(config: Config, target: Architecture) -> Architecture:
    """EAGLE 3 with latent attention and dense MLPs: the first layer reads twice the width (deepseek_eagle3.py)."""
    hidden, layers = config.positive("hidden_size"), config.positive("num_hidden_layers", largest=MOST)
    heads = config.positive("num_attention_heads")
    attending = latent_attention(config, hidden, heads)
    wider = tuple(replace(t, columns=2 * hidden) if t.name in _INPUTS and t.columns else t for t in attending)
    others: Tensors = (*mlp(hidden, config.positive("intermediate_size")), *norms(3, hidden))
    count, read = aux_states(config), config.optional("target_hidden_size") or hidden
    fused = (
        *linear("fc", hidden, count * read, Split.WHOLE),
        *(norms(count, read) if config.flag("fc_norm") else ()),
    )
    caches = (latent_cache(config),)
    first = Layer(tensors=(*wider, *others, *fused), caches=caches)
    later = Layer(tensors=(*attending, *others), caches=caches)
    last = own_head(config, hidden, target)
    found = drafted(config, target, (first, *(later,) * (layers - 1)), hidden, last)
    sizes = config.positive("qk_nope_head_dim") + config.positive("v_head_dim")
    return replace(found, absorbed_elements=heads * sizes * config.positive("kv_lora_rank"))


def read_medusa(config: Config, target: Architecture) -> Architecture:
    """Medusa: blocks of linear layers and a head for each, no attention (medusa.py); nothing is shared."""
    hidden, blocks = config.positive("hidden_size"), config.positive("num_heads", largest=MOST)
    depth = config.positive("num_hidden_layers", default=1, largest=MOST)
    bias = config.flag("medusa_fc_bias")
    one = tuple(t for _ in range(depth) for t in linear("blocks", hidden, hidden, Split.WHOLE, bias=bias))
    rows = target.vocabulary_size
    heads = 1 if config.flag("original_lm_head") else blocks
    lm_heads = tuple(replace(head(rows, hidden), name=f"lm_heads.{i}") for i in range(heads))
    found = drafted(config, target, (Layer(tensors=one),) * blocks, hidden, lm_heads)
    return replace(found, first=(), borrows=(), approximations=())


def named(config: Config) -> str:
    """The first of the config's architectures, empty where it names none."""
    names = config.values.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
