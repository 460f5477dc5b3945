"""Which layers of a model have experts, how many, how wide, and what stands beside them."""

from collections.abc import Callable
from typing import NamedTuple

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, Config, ConfigError
from vllm_doctor.memory.families.parts import Tensors, correction, experts, mlp, plain, router


class Experts(NamedTuple):
    """The experts of a model: `layers` that have them; `shared` is the width of the expert that all tokens take."""

    number: int
    per_token: int
    width: int
    layers: frozenset[int]
    shared: int = 0
    shared_gate: bool = False
    corrected: bool = False
    router_bias: bool = False
    bias: bool = False
    gated: bool = True
    router_bytes: int | None = None

    def tensors(self, hidden: int) -> Tensors:
        """The router, the routed and the shared experts of one layer."""
        return (
            *router(hidden, self.number, bias=self.router_bias, element_bytes=self.router_bytes),
            *((correction(self.number),) if self.corrected else ()),
            *experts(hidden, self.width, self.number, gated=self.gated, bias=self.bias),
            *(mlp(hidden, self.shared, gated=self.gated, prefix="mlp.shared_experts.") if self.shared else ()),
            *((plain("mlp.shared_expert_gate", 1, hidden),) if self.shared_gate else ()),
        )


Finder = Callable[[Config, int], Experts | None]
_COUNTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts", "num_routed_experts")
_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")
_WIDTHS = ("moe_intermediate_size", "expert_intermediate_size", "moe_ffn_hidden_size", "expert_ffn_hidden_size")


def count_of(config: Config) -> int:
    """The number of routed experts, 0 for a dense model."""
    for key in _COUNTS:
        value = config.get(key)
        if isinstance(value, list):
            return max(config.counts(key), default=0)
        if value is not None:
            return config.count(key, largest=LARGEST_EXPERTS)
    return 0


def per_token_of(config: Config) -> int:
    """Experts that one token takes."""
    for key in _PER_TOKEN:
        if isinstance(config.get(key), list):
            return max(config.counts(key), default=0)
    return config.count(*_PER_TOKEN, default=1, largest=LARGEST_EXPERTS)


def _make(config: Config, width: int, layers: frozenset[int], **more: int | bool | None) -> Experts | None:
    count = count_of(config)
    if not count or not layers:
        return None
    return Experts(count, per_token_of(config), width, layers, **more)  # type: ignore[arg-type]


def every_layer(config: Config, layers: int) -> Experts | None:
    """Mixtral and its kin: experts in all layers, as wide as intermediate_size says."""
    return _make(config, config.positive("intermediate_size"), frozenset(range(layers)))


def phimoe(config: Config, layers: int) -> Experts | None:
    """PhiMoE (phimoe.py)."""
    return every_layer(config, layers)


def granite(config: Config, layers: int) -> Experts | None:
    """Granite MoE: a shared MLP beside the experts (granitemoeshared.py)."""
    shared = config.count("shared_intermediate_size", default=0)
    return _make(config, config.positive("intermediate_size"), frozenset(range(layers)), shared=shared)


def gpt_oss(config: Config, layers: int) -> Experts | None:
    """gpt-oss: everything has a bias (gpt_oss.py)."""
    width = config.positive("intermediate_size")
    return _make(config, width, frozenset(range(layers)), router_bias=True, bias=True)


def qwen(config: Config, layers: int) -> Experts | None:
    """Qwen2-MoE, Qwen3-MoE, Qwen3-Next: every decoder_sparse_step-th layer, but mlp_only_layers (qwen2_moe.py)."""
    step = config.count("decoder_sparse_step", default=1)
    dense = set(config.counts("mlp_only_layers"))
    which = frozenset(i for i in range(layers) if step and i not in dense and (i + 1) % step == 0)
    shared = config.count("shared_expert_intermediate_size", default=0)
    return _make(config, config.positive("moe_intermediate_size"), which, shared=shared, shared_gate=shared > 0)


def deepseek(config: Config, layers: int) -> Experts | None:
    """DeepSeek and what follows it: the first layers dense, then experts with shared ones (deepseek_v2.py)."""
    first = config.count("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers", default=0)
    frequency = max(1, config.count("moe_layer_freq", default=1) if _is_number(config, "moe_layer_freq") else 1)
    which = frozenset(i for i in range(layers) if i >= first and i % frequency == 0)
    types = config.words("mlp_layer_types", layers)
    if types is not None:
        which = frozenset(i for i, t in enumerate(types) if t != "dense")
    elif isinstance(config.get("moe_layer_freq"), list):
        which = frozenset(i for i, on in enumerate(config.counts("moe_layer_freq", layers)[:layers]) if on)
    width = config.positive(*_WIDTHS)
    shared = config.count("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0) * width
    corrected = config.text("topk_method") == "noaux_tc"
    return _make(config, width, which, shared=shared, corrected=corrected)


def _is_number(config: Config, key: str) -> bool:
    return isinstance(config.get(key), int)


def corrected(config: Config, layers: int) -> Experts | None:
    """GLM-4.5, dots.1, Kimi: as DeepSeek, always with a correction bias (glm4_moe.py, dots1.py)."""
    found = deepseek(config, layers)
    return None if found is None else found._replace(corrected=True)


def sarvam(config: Config, layers: int) -> Experts | None:
    """Sarvam and Ling: a router of the precision that the config names, shared experts of a width of their own.

    sarvam.py, bailing_moe.py.
    """
    found = deepseek(config, layers)
    if found is None:
        return None
    width = config.positive("moe_shared_expert_intermediate_size", default=found.width)
    return found._replace(
        shared=config.count("num_shared_experts", default=0) * width,
        corrected=config.flag("moe_router_enable_expert_bias"),
        router_bytes=4 if config.text("router_dtype") == "fp32" else None,
    )


def param2(config: Config, layers: int) -> Experts | None:
    """Param-2: an fp32 router with a bias; shared experts as wide as the config says of them all (param2moe.py)."""
    first = config.count("first_k_dense_replace", default=1)
    width, count = config.positive("moe_intermediate_size"), config.count("num_shared_experts", default=1)
    wide = config.optional("moe_shared_expert_intermediate_size") or width * count
    return _make(
        config,
        width,
        frozenset(range(first, layers)),
        shared=wide if count else 0,
        corrected=config.flag("moe_router_enable_expert_bias", default=True),
        router_bytes=4,
    )


def ernie(config: Config, layers: int) -> Experts | None:
    """ERNIE 4.5: from moe_layer_start_index to moe_layer_end_index; an fp32 router (ernie45_moe.py)."""
    start = config.count("moe_layer_start_index", default=0)
    end = config.values.get("moe_layer_end_index")
    last = end if isinstance(end, int) and 0 <= end < layers else layers - 1
    step = max(1, config.count("moe_layer_interval", default=1))
    which = frozenset(i for i in range(layers) if start <= i <= last and (i + 1) % step == 0)
    width = _first_count(config, "moe_intermediate_size")
    shared = config.count("moe_num_shared_experts", default=0) * width
    return _make(config, width, which, shared=shared, corrected=True, router_bytes=4)


def _first_count(config: Config, key: str) -> int:
    if not isinstance(config.get(key), list):
        return config.positive(key)
    if not (found := config.counts(key)) or not found[0]:
        raise ConfigError(f"{key} is a list without a first width")
    return found[0]


def llama4(config: Config, layers: int) -> Experts | None:
    """Llama 4: every interleave_moe_layer_step-th layer, with one shared expert of the same width (llama4.py)."""
    step = config.count("interleave_moe_layer_step", default=1)
    which = frozenset(i for i in range(layers) if step and (i + 1) % step == 0)
    width = config.positive("intermediate_size")
    return _make(config, width, which, shared=width)


def minimax(config: Config, layers: int) -> Experts | None:
    """MiniMax M2: experts in all layers, with a correction bias (minimax_m2.py)."""
    return _make(config, config.positive("intermediate_size"), frozenset(range(layers)), corrected=True, router_bytes=4)


def jamba(config: Config, layers: int) -> Experts | None:
    """Jamba: every expert_layer_period-th layer from expert_layer_offset on (jamba.py)."""
    period = max(1, config.count("expert_layer_period", default=2))
    offset = config.count("expert_layer_offset", default=1)
    which = frozenset(i for i in range(layers) if i % period == offset)
    return _make(config, config.positive("intermediate_size"), which) if count_of(config) > 1 else None


def glm(config: Config, layers: int) -> Experts | None:
    """GLM-4.5: as `corrected`, with an fp32 router (glm4_moe.py)."""
    found = corrected(config, layers)
    return None if found is None else found._replace(router_bytes=4)


def exaone(config: Config, layers: int) -> Experts | None:
    """EXAONE MoE and others that name each layer's MLP (`mlp_layer_types`, `is_moe_layer`)."""
    found = corrected(config, layers)
    flags = config.get("is_moe_layer")
    if found is not None and isinstance(flags, list) and len(flags) >= layers:
        found = found._replace(layers=frozenset(i for i in range(layers) if flags[i] is True))
    return found


def hunyuan(config: Config, layers: int) -> Experts | None:
    """Hunyuan MoE: experts in all layers, shared ones beside them (hunyuan_v1.py)."""
    listed = config.get("moe_intermediate_size")
    width = max(config.counts("moe_intermediate_size")) if isinstance(listed, list) and listed else 0
    width = width or config.positive("moe_intermediate_size", "intermediate_size")
    shared_count = config.get("num_shared_expert")
    shared = max(config.counts("num_shared_expert")) if isinstance(shared_count, list) and shared_count else 0
    shared = shared or (config.count("num_shared_expert", default=0) if not isinstance(shared_count, list) else 0)
    base = config.positive("intermediate_size")
    return _make(config, width, frozenset(range(layers)), shared=shared * base)
