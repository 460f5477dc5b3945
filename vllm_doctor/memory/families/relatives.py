"""Architectures that are nearly another one: the first Qwen, and OLMo with delta nets."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.facts import Architecture, Layer
from vllm_doctor.memory.families.decoder import qk_norms, read_decoder
from vllm_doctor.memory.families.hybrid import attention_shape, depth, hybrid
from vllm_doctor.memory.families.parts import attention, full, mlp, norms
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
