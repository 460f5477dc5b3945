"""Architectures that are nearly another one: the first Qwen, OLMo with delta nets, and Intern-S1-Pro."""

import math

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.context import rope_parameters
from vllm_doctor.memory.facts import Architecture, Layer, Split
from vllm_doctor.memory.families.decoder import qk_norms, read_decoder
from vllm_doctor.memory.families.hybrid import attention_shape, depth, hybrid
from vllm_doctor.memory.families.parts import attention, full, mlp, norms, plain
from vllm_doctor.memory.families.states import delta_net
from vllm_doctor.memory.families.styles import STYLES
from vllm_doctor.memory.families.windows import layer_types


def read_first_qwen(config: Config) -> Architecture:
    """Qwen (1): as Llama with biases on queries, keys and values; intermediate_size counts gate and up (qwen.py)."""
    halved = {**config.values, "intermediate_size": config.positive("intermediate_size") // 2}
    style = STYLES["Qwen2ForCausalLM"]._replace(tied=config.flag("tie_word_embeddings"))
    return read_decoder(Config(halved, config.model_type, config.outer), style)


def read_olmo_hybrid(config: Config) -> Architecture:
    """OLMo with gated delta nets and attention with norms over all heads at once (olmo_hybrid.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    shape = attention_shape(config, hidden)
    net, cache = delta_net(config, hidden)
    width = config.positive("intermediate_size")
    feed = (*mlp(hidden, width), *norms(2, hidden))
    attending = (
        *attention(hidden, shape.heads, shape.kv_heads, shape.head_size, qkv_bias=config.flag("attention_bias")),
        *qk_norms(config, "full", shape),
    )
    full_layer = Layer(tensors=(*attending, *feed), caches=(full(shape.kv_heads, shape.head_size),))
    state_layer = Layer(tensors=(*net, *feed), caches=(cache,))
    types = layer_types(config, layers) or ("linear_attention",) * layers
    chosen = [full_layer if kind == "full_attention" else state_layer for kind in types]
    return hybrid(config, chosen, shape, None, width, state_key_size=config.positive("linear_key_head_dim"))


def read_interns1_pro(config: Config) -> Architecture:
    """Intern-S1-Pro: Qwen3's experts with rotations by sums of frequencies (interns1_pro.py, rotary_embedding/fope.py).

    Its table has a row for every key-value head of a rank; it is counted as of the one that a rank of so large a model
    has.
    """
    base = read_decoder(config, STYLES["Qwen3MoeForCausalLM"])
    count = _frequencies(config, base.head_size)
    table = plain("rotary_emb.coef", base.kv_heads * count, count, Split.HEADS, heads=base.kv_heads, copies=2)
    positions = config.positive("max_position_embeddings")
    return replace(
        base,
        inside="Qwen3MoeForCausalLM",
        first=(*base.first, table),
        rope_elements=2 * positions * base.head_size,
    )


def _frequencies(config: Config, size: int) -> int:
    """How many of a head's frequencies turn within the context (FourierRotaryEmbedding._compute_inv_freq)."""
    rope = rope_parameters(config)
    if all(rope.get(key) is None for key in ("fope_init_factor", "fope_sep_head", "num_inv_freq")):
        raise ConfigError("rope_scaling has none of the keys of FoPE, without which vLLM refuses this model")
    asked = rope.get("num_inv_freq")
    if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0:
        return min(asked, size // 2)
    slowest = 2 * math.pi / config.positive("max_position_embeddings")
    theta = max(config.number("rope_theta", 10000.0), 1.0)
    return sum(theta ** (-2 * i / size) > slowest for i in range(size // 2))
