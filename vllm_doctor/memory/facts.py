"""What the memory arithmetic works on: the model's architecture, the launch's settings, the device and the release."""

from collections.abc import Mapping
from enum import Enum

from vllm_doctor.facts.base import Facts

Release = tuple[int, int, int]
"""A vLLM release as numbers: 0.10.1.1 is (0, 10, 1)."""


def release_numbers(version: str) -> Release | None:
    """The first three numbers of a version (`0.9.2`, `0.20.0rc1+cu130`); None where it starts with none."""
    numbers: list[int] = []
    for part in version.strip().removeprefix("v").split("+")[0].split(".")[:3]:
        digits = part[: next((i for i, c in enumerate(part) if not c.isdecimal()), len(part))]
        if not digits or len(digits) > 6:
            break
        numbers.append(int(digits))
    return (numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 0) if len(numbers) >= 2 else None


class Split(str, Enum):
    """How tensor and expert parallelism divide a tensor.

    `whole`: every rank holds all of it. `rows`/`columns`: 1/tp of that side. `heads`: the rows are key-value heads, of
    which every rank has at least one. `vocabulary`: rows padded to 64. `experts`: copies are experts: tp cuts
    the rows or columns inside of them (`experts-rows`, `experts-columns`), expert parallelism deals out whole ones.
    """

    WHOLE = "whole"
    ROWS = "rows"
    COLUMNS = "columns"
    HEADS = "heads"
    VOCABULARY = "vocabulary"
    EXPERT_ROWS = "experts-rows"
    EXPERT_COLUMNS = "experts-columns"
    EXPERT_WHOLE = "experts-whole"


# How names of a tower's tensors begin that are built though a launch allows no medium.
LASTING = "lasting."


class Tensor(Facts, frozen=True):
    """A weight matrix (`columns` > 0) or a vector (`columns` 0) of a layer, `copies` times.

    `name` is the module's path inside the layer as the checkpoint has it (`self_attn.q_proj`), which lists of
    unquantized modules match. `linear`: a quantization method may pack it. `heads`: key-value heads, for Split.HEADS;
    an encoder's heads, for its rows and columns, which stay whole where the ranks do not divide the heads.
    `smallest`: where ranks divide that side, each holds so many at least; `multiple`: its rows on a rank are one (its
    columns, where those are divided).
    `units`: the ranks must divide so many (heads, a width), or vLLM refuses to build the layer; 0: any number does.
    `element_bytes`: where it differs from the model's dtype. `added`: allocated by vLLM, not in the checkpoint, so that
    it counts as memory and not as a parameter of the model.
    """

    name: str
    rows: int
    columns: int = 0
    split: Split = Split.WHOLE
    linear: bool = False
    copies: int = 1
    heads: int = 0
    element_bytes: int | None = None
    added: bool = False
    smallest: int = 0
    multiple: int = 1
    units: int = 0

    @property
    def parameters(self) -> int:
        """Elements of all copies, undivided and unpadded; 0 for what is not the model's."""
        return 0 if self.added else self.rows * max(self.columns, 1) * self.copies


class CacheKind(str, Enum):
    """What a layer keeps for every request (vLLM 0.32 v1/kv_cache_interface.py, KVCacheSpecKind)."""

    FULL = "full"
    SLIDING = "sliding"
    CHUNKED = "chunked"
    LATENT = "latent"
    HIDDEN = "hidden"
    CROSS = "cross"
    STATE = "state"
    SLIDING_LATENT = "sliding-latent"
    RING = "ring"


class StateTensor(Facts, frozen=True):
    """One state tensor of a Mamba or linear layer on one rank, by how its size follows from tp.

    Elements on a rank are `fixed * divided / tp`; `temporal` states take mamba_ssm_cache_dtype, others
    mamba_cache_dtype; `element_bytes` where the layer sets the size itself.
    """

    divided: int
    fixed: int
    temporal: bool = False
    element_bytes: int | None = None


class Cache(Facts, frozen=True):
    """The cache of one layer: heads and sizes for attention, state tensors for Mamba and linear attention.

    `window` is the sliding window or the chunk in tokens. `value_size` 0: no separate values (MLA). `state_name` is
    vLLM's name of the state (`mamba1`, `mamba2`, `gdn_attention`, `linear_attention`, `short_conv`, `kda`, `ling_kda`).
    `own_element_bytes`: the size of its numbers where --kv-cache-dtype does not decide it. `record`: the layout of a
    cache that is packed into blocks with others (`v4`, `v4.1`, and `v4.1-window`). A cache may store a number for
    every `tokens_per_state` tokens, in blocks of `block` tokens where the launch does not say how many.
    `states_per_token`: of an encoder that hears several frames while the decoder says one token.
    """

    kind: CacheKind
    kv_heads: int = 0
    head_size: int = 0
    value_size: int = 0
    window: int | None = None
    states: tuple[StateTensor, ...] = ()
    state_name: str = ""
    own_element_bytes: int | None = None
    record: str = ""
    tokens_per_state: int = 1
    block: int | None = None
    states_per_token: int = 1


class Layer(Facts, frozen=True):
    """One kind of layer: its tensors and its caches."""

    tensors: tuple[Tensor, ...]
    caches: tuple[Cache, ...] = ()


class ExpertLayout(Facts, frozen=True):
    """What the kernel of MXFP4 experts rounds up to: their width, the hidden size, the rows of its copy of the scales.

    `keeps_loaded_scales`: the scales of the checkpoint stay in memory beside that copy.
    """

    width: int
    hidden: int
    scale_rows: int = 1
    keeps_loaded_scales: bool = False


# vLLM 0.32 fused_moe/oracle/mxfp4.py, `mxfp4_round_up_hidden_size_and_intermediate_size`.
MARLIN = ExpertLayout(width=128, hidden=256)


class Quantization(Facts, frozen=True):
    """The checkpoint's quantization: vLLM's name of the method, its numbers, and the modules that it leaves out.

    `bits` of a weight; `group` in columns (0: one per channel, -1: one per tensor); `block` the two sides of FP8
    blocks; `symmetric`: no zero points; `static_activations`: one more scale per layer. `ignored` are patterns of
    module names. `kv_cache_dtype` is what the checkpoint itself asks for its cache. `quantized_head`: lm_head is
    packed too. `activation_order`: a column order is stored as well; `float_format`: numbers are floating.
    `scale_bytes` of a block's scale; `experts`: how routed experts are packed, where it is another way (`mxfp4`,
    `nvfp4`); `expert_layout`: how the kernel of this launch lays out MXFP4 experts.
    """

    method: str
    bits: int = 16
    group: int = 0
    block: tuple[int, int] | None = None
    symmetric: bool = True
    static_activations: bool = False
    ignored: tuple[str, ...] = ()
    kv_cache_dtype: str | None = None
    quantized_head: bool = False
    activation_order: bool = False
    float_format: bool = False
    scale_bytes: int = 4
    experts: str | None = None
    expert_layout: ExpertLayout = MARLIN


class Architecture(Facts, frozen=True):
    """What of a config.json drives memory.

    `layers` in order, every entry an index into `kinds`; `side_layers` are likewise those of an encoder that keeps
    a cache, which stages deal out as well. `first` are tensors of the first pipeline stage (embedding), `last`
    those of the last (norm, lm_head), `towers` those beside the language model (vision, audio, the head of a
    pooling model), which every stage holds. `inside` is the model that a pooling or multi-modal architecture is
    built on. `native_max_model_len` is what vLLM derives where the user sets none, `longest_max_model_len` the most
    that it takes when asked (None: no limit is known). `largest_intermediate` is the widest dense MLP,
    `expert_intermediate` one expert's. `rope_elements` are those of the RoPE tables (or other tables of positions),
    `absorbed_elements` those of the copies that MLA makes per layer. `kernel_block`: tokens of the smallest block of
    a backend that only this architecture has. `output_groups`: groups of heads that the output has projections for.
    `host_bytes`: tables that vLLM keeps in the host's memory, of all ranks. `state_key_size` is that of a delta
    net's heads. `borrows`: what a draft takes from its target (`embedding`, `head`). `media`: what the towers take
    (`image`, `video`, `audio`). `exact`: every term is known; else `approximations` says what is not.
    """

    name: str
    model_type: str
    dtype: str
    hidden_size: int
    vocabulary_size: int
    layers: tuple[int, ...]
    kinds: tuple[Layer, ...]
    first: tuple[Tensor, ...]
    last: tuple[Tensor, ...]
    towers: tuple[Tensor, ...] = ()
    side_layers: tuple[int, ...] = ()
    attention_heads: int = 0
    kv_heads: int = 0
    head_size: int = 0
    native_max_model_len: int | None = None
    longest_max_model_len: int | None = None
    position_key: str | None = None
    tied_embeddings: bool = False
    largest_intermediate: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    is_multimodal: bool = False
    is_pooling: bool = False
    borrows: tuple[str, ...] = ()
    inside: str | None = None
    is_encoder_decoder: bool = False
    is_attention_free: bool = False
    is_hybrid: bool = False
    sparse_attention: bool = False
    output_groups: int = 0
    host_bytes: int = 0
    kernel_block: int | None = None
    encoder_tokens: int = 0
    vision_hidden_size: int = 0
    vision_layers: int = 0
    media: tuple[str, ...] = ()
    rope_elements: int = 0
    absorbed_elements: int = 0
    quantization: Quantization | None = None
    mamba_ssm_dtype: str | None = None
    state_key_size: int = 0
    exact: bool = True
    approximations: tuple[str, ...] = ()

    @property
    def keeps_nothing(self) -> bool:
        """Whether no layer has a cache: an encoder, for which vLLM allocates none."""
        return self.is_pooling and not any(kind.caches for kind in self.kinds)


class DraftModel(Facts, frozen=True):
    """`--speculative-config`: the method, the draft's name and how many tokens it proposes.

    `hidden_states`: of how many layers the method `extract_hidden_states` keeps what they hand on.
    """

    method: str | None = None
    model: str | None = None
    tokens: int = 0
    tensor_parallel_size: int | None = None
    hidden_states: int = 0


class LaunchSettings(Facts, frozen=True):
    """The settings of a launch that move memory, as vLLM reads them; None stands for vLLM's own default.

    `max_model_len` is -1 for `auto`; with `any_max_model_len` it may be over what the config says.
    `gpu_memory_utilization` is a fraction of the card. `kv_cache_memory_bytes` is per GPU. `cpu_offload_gb` in GiB.
    `pooling`: served for vectors or scores (`--runner pooling`). `limit_mm_per_prompt` None: not given.
    `mm_encoder_tp_mode` is `weights` or `data`. `tables_on_gpu`: of n-grams, which are on the host by default.
    `indexer_fp4`: keys of a sparse indexer in FP4. `environment`: VLLM_ variables of the launch.
    """

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    decode_context_parallel_size: int = 1
    expert_parallel: bool = False
    max_model_len: int | None = None
    any_max_model_len: bool = False
    gpu_memory_utilization: float | None = None
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    kv_cache_dtype: str = "auto"
    block_size: int | None = None
    dtype: str = "auto"
    quantization: str | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enforce_eager: bool = False
    cpu_offload_gb: float = 0.0
    pooling: bool = False
    enable_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16
    fully_sharded_loras: bool = False
    limit_mm_per_prompt: Mapping[str, int] | None = None
    language_model_only: bool = False
    mm_encoder_tp_mode: str = "weights"
    skip_mm_profiling: bool = False
    draft: DraftModel | None = None
    prefix_caching: bool | None = None
    chunked_prefill: bool | None = None
    async_scheduling: bool | None = None
    disable_hybrid_kv_cache_manager: bool = False
    mamba_cache_dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    mamba_cache_mode: str | None = None
    mamba_block_size: int | None = None
    gdn_prefill_backend: str = "auto"
    attention_backend: str | None = None
    tables_on_gpu: bool = False
    indexer_fp4: bool = False
    performance_mode: str | None = None
    cudagraph_sizes: tuple[int, ...] | None = None
    cudagraph_mode: str | None = None
    compilation_level: int | None = None
    environment: Mapping[str, str] = {}

    def __hash__(self) -> int:
        """Equal settings hash alike; the mappings, which have no hash, are left to the comparison."""
        return hash((self.tensor_parallel_size, self.pipeline_parallel_size, self.max_model_len, self.kv_cache_dtype))


class Device(Facts, frozen=True):
    """One GPU of `count` alike ones; `free_bytes` None where the card is not here. `capability` as 90 for 9.0."""

    name: str
    total_bytes: int
    free_bytes: int | None = None
    capability: int | None = None
    count: int = 1


class WeightPart(Facts, frozen=True):
    """One line of the weights on the fullest GPU: `name` of the part, its bytes, and where the rule comes from."""

    name: str
    size_bytes: int
    source: str


class Weights(Facts, frozen=True):
    """The weights of a launch; `uncounted` is what of them could not be counted at all.

    `loading_bytes` is the most that the fullest rank holds of them while they are loaded, in its band.
    `parameters` are the model's own (one replica, no padding). `total_bytes` of one replica on all its GPUs.
    `per_gpu_bytes` of the fullest rank, buffers included; `stages` of each pipeline stage. `exact`: every term known.
    """

    parameters: int
    total_bytes: int
    per_gpu_bytes: int
    stages: tuple[int, ...]
    buffers_bytes: int
    offloaded_bytes: int
    parts: tuple[WeightPart, ...]
    exact: bool
    approximations: tuple[str, ...] = ()
    uncounted: str | None = None
    loading_bytes: tuple[int, int] = (0, 0)
