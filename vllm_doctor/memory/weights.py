"""The weights of a launch: the model's parameters, and the bytes that every pipeline stage's ranks hold."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from msgspec.structs import replace

from vllm_doctor.facts.model import WeightFile
from vllm_doctor.memory.drafting import MTP_METHODS, WITHOUT_DRAFT
from vllm_doctor.memory.facts import (
    Architecture,
    CacheKind,
    LaunchSettings,
    Layer,
    Quantization,
    Release,
    Split,
    Tensor,
    WeightPart,
    Weights,
)
from vllm_doctor.memory.implementation import EMBEDDING_ON_ALL, HEAD_ON_ALL, built_as, served
from vllm_doctor.memory.kv_cache.specs import model_element_bytes
from vllm_doctor.memory.media import towers_under
from vllm_doctor.memory.mxfp4 import expert_layout
from vllm_doctor.memory.packing import ignored_names, is_packed, matches, packed_bytes
from vllm_doctor.memory.sharding import checked, shard
from vllm_doctor.memory.stages import stage_of_layers

GIB = 2**30
# Methods that pack an unquantized checkpoint while loading (0.32 layers/quantization/online; bitsandbytes to 0.27).
ONLINE = {
    "fp8": Quantization(method="fp8", bits=8, group=-1, float_format=True),
    "fp8_per_tensor": Quantization(method="fp8", bits=8, group=-1, float_format=True),
    "fp8_per_block": Quantization(method="fp8", bits=8, block=(128, 128), float_format=True),
    "mxfp8": Quantization(method="mxfp8", bits=8, group=32, float_format=True),
    "int8_per_channel_weight_only": Quantization(method="int8", bits=8, group=0),
    "experts_int8": Quantization(method="experts_int8", bits=8, group=0),
    "bitsandbytes": Quantization(method="bitsandbytes", bits=4, group=64),
}


# Layers are made on the meta device and packed as they are loaded from here on (quantization/fp8.py, `device="meta"`).
_PACKED_ONE_BY_ONE: Release = (0, 16, 0)
# From 0.13 on they were packed between loads while all stood there: 72 billion parameters in 16 bits loaded on 140 GiB
# with 0.12 and not with 0.13 (vLLM issue 31273).
_PACKED_WHILE_LOADED: Release = (0, 13, 0)
_FRAGMENTED = 0.03


def weights(
    architecture: Architecture,
    settings: LaunchSettings,
    release: Release,
    weight_files: Sequence[WeightFile] = (),
    draft: Architecture | None = None,
    capability: int | None = None,
) -> Weights:
    """The weights of a launch; `draft` is the speculative model, where its config is known.

    `capability` is the GPU's, as 90 for 9.0: the kernels that it has decide how MXFP4 experts are padded.

    Files that were read say how many parameters there are; the layers say how they are divided. Raises DoctorError for
    parallel sizes that are none.
    """
    counted = _counted(architecture, checked(settings), release, draft, capability)
    return _with_files(counted, architecture, weight_files) if weight_files else counted


@lru_cache(maxsize=256)
def _counted(
    architecture: Architecture,
    settings: LaunchSettings,
    release: Release,
    draft: Architecture | None,
    capability: int | None,
) -> Weights:
    architecture = served(architecture, release)
    quantization, doubt = quantization_of(architecture, settings)
    if quantization is not None and quantization.method == "mxfp4":
        quantization = replace(quantization, expert_layout=expert_layout(architecture, settings, release, capability))
    model_bytes = model_element_bytes(architecture, settings)
    built = replace(architecture, towers=towers_under(architecture, settings, release))
    stages = stage_bytes(built, settings, quantization, model_bytes)
    extra = _extras(architecture, settings, release, model_bytes, draft)
    buffers = architecture.rope_elements * model_bytes
    last = len(stages) - 1
    totals = [
        s + buffers + sum(p.size_bytes for p in extra[0] if i == last or p.name != "draft")
        for i, s in enumerate(stages)
    ]
    fullest = max(range(len(totals)), key=totals.__getitem__)
    offloaded = min(totals[fullest], int(settings.cpu_offload_gb * GIB))
    parts = (
        WeightPart(name="weights", size_bytes=stages[fullest], source="vLLM 0.32 model_executor/models"),
        *extra[0],
    )
    if buffers:
        source = "vLLM 0.32 layers/rotary_embedding"
        parts = (*parts, WeightPart(name="rotary tables", size_bytes=buffers, source=source))
    doubts = (*architecture.approximations, *extra[1], *((doubt,) if doubt else ()))
    return Weights(
        parameters=parameters_of(architecture),
        total_bytes=sum(totals) * settings.tensor_parallel_size,
        per_gpu_bytes=totals[fullest] - offloaded,
        stages=tuple(t - min(t, offloaded) for t in totals),
        buffers_bytes=buffers,
        offloaded_bytes=offloaded,
        parts=parts,
        exact=architecture.exact and not doubts,
        approximations=doubts,
        uncounted=_uncounted(settings, draft),
        loading_bytes=_loading(architecture, built, settings, release, model_bytes),
    )


def _loading(
    architecture: Architecture, built: Architecture, settings: LaunchSettings, release: Release, model_bytes: int
) -> tuple[int, int]:
    """What is allocated before `--quantization fp8` has packed it: all of it, before layers were made one by one."""
    if architecture.quantization is not None or settings.quantization != "fp8" or release >= _PACKED_ONE_BY_ONE:
        return 0, 0
    whole = max(stage_bytes(built, settings, None, model_bytes)) + architecture.rope_elements * model_bytes
    whole = max(0, whole - int(settings.cpu_offload_gb * GIB))
    return whole, round(whole * (1 if release < _PACKED_WHILE_LOADED else 1 + _FRAGMENTED))


@lru_cache(maxsize=256)
def parameters_of(architecture: Architecture) -> int:
    """The model's own parameters: one replica, no padding, nothing that vLLM adds."""
    kinds = [sum(t.parameters for t in k.tensors) for k in architecture.kinds]
    outside = (*architecture.first, *architecture.last, *architecture.towers)
    return sum(kinds[i] for i in (*architecture.layers, *architecture.side_layers)) + sum(t.parameters for t in outside)


def quantization_of(architecture: Architecture, settings: LaunchSettings) -> tuple[Quantization | None, str | None]:
    """How the weights are packed, and what of that is not known: the checkpoint's way, else `--quantization`'s."""
    own = architecture.quantization
    if own is not None:
        known = own.method in _KNOWN or own.bits < 16
        return own, None if known else f"how {own.method} packs weights is an estimate"
    asked = settings.quantization
    if asked is None:
        return None, None
    if asked in ONLINE:
        return ONLINE[asked], "layers that online quantization leaves out are not known"
    return None, f"--quantization {asked} needs a checkpoint that is packed so; counted unpacked"


_KNOWN = ("gptq", "gptq_marlin", "awq", "awq_marlin", "fp8", "nvfp4", "mxfp4", "compressed-tensors", "auto-round")


def stage_bytes(
    architecture: Architecture, settings: LaunchSettings, quantization: Quantization | None, model_bytes: int
) -> tuple[int, ...]:
    """Bytes of the parameters that one rank of every stage allocates.

    The embedding stands on the first stage, norm and lm_head on the last; a tied embedding on both. Towers stand on
    every stage (0.32 model_executor/models/interfaces.py _mark_tower_model asks for no rank).
    """
    kinds = [_layer_bytes(k, settings, quantization, model_bytes) for k in architecture.kinds]
    stages = [0] * settings.pipeline_parallel_size
    for layers in filter(None, (architecture.layers, architecture.side_layers)):
        for kind, stage in zip(layers, stage_of_layers(len(layers), settings), strict=True):
            stages[stage] += kinds[kind]
    for index, more in _single_layer_corrections(architecture, settings, quantization, model_bytes):
        stages[stage_of_layers(len(architecture.layers), settings)[index]] += more
    first = _sum(architecture.first, settings, quantization, model_bytes)
    last = _sum(architecture.last, settings, quantization, model_bytes)
    everywhere, names = range(len(stages)), {architecture.name, built_as(architecture)}
    for stage in everywhere if names & EMBEDDING_ON_ALL else (0,):
        stages[stage] += first
    for stage in everywhere if names & HEAD_ON_ALL else (-1,):
        stages[stage] += last
    towers = _sum(architecture.towers, settings, None, model_bytes)
    stages = [size + towers for size in stages]
    if architecture.tied_embeddings and len(stages) > 1 and not names & EMBEDDING_ON_ALL:
        embeddings = [t for t in architecture.first if t.split is Split.VOCABULARY][:1]
        stages[-1] += _sum(embeddings, settings, None, model_bytes)
    return tuple(stages)


def _layer_bytes(layer: Layer, settings: LaunchSettings, quantization: Quantization | None, model_bytes: int) -> int:
    return _sum(layer.tensors, settings, quantization, model_bytes)


def _sum(
    tensors: Iterable[Tensor], settings: LaunchSettings, quantization: Quantization | None, model_bytes: int
) -> int:
    return sum(tensor_bytes(t, settings, quantization, model_bytes) for t in tensors)


def tensor_bytes(tensor: Tensor, settings: LaunchSettings, quantization: Quantization | None, model_bytes: int) -> int:
    """Bytes of one tensor on one rank."""
    part = shard(tensor, settings)
    if quantization is not None and is_packed(tensor, quantization):
        everywhere, _ = ignored_names(quantization.ignored)
        if not matches(tensor.name, everywhere):
            return packed_bytes(tensor, part, quantization, model_bytes)
    return part.elements * (tensor.element_bytes or model_bytes)


def _single_layer_corrections(
    architecture: Architecture, settings: LaunchSettings, quantization: Quantization | None, model_bytes: int
) -> Iterable[tuple[int, int]]:
    """What modules weigh more that are left unquantized in single layers."""
    if quantization is None:
        return
    everywhere, single = ignored_names(quantization.ignored)
    names: dict[int, set[str]] = {}
    for index, name in single:
        names.setdefault(index, set()).add(name)
    for index, ignored in names.items():
        if index >= len(architecture.layers):
            continue
        for tensor in architecture.kinds[architecture.layers[index]].tensors:
            if not is_packed(tensor, quantization) or matches(tensor.name, everywhere):
                continue
            if "" in ignored or matches(tensor.name, frozenset(ignored)):
                whole = shard(tensor, settings).elements * (tensor.element_bytes or model_bytes)
                yield index, whole - tensor_bytes(tensor, settings, quantization, model_bytes)


def _extras(
    architecture: Architecture,
    settings: LaunchSettings,
    release: Release,
    model_bytes: int,
    draft: Architecture | None,
) -> tuple[tuple[WeightPart, ...], tuple[str, ...]]:
    """Memory beside the checkpoint's: MLA's absorbed copies, LoRA slots, the speculative draft."""
    parts: list[WeightPart] = []
    if architecture.absorbed_elements and release >= (0, 7, 0):
        layers = _layers_with_latents(architecture, settings)
        size = architecture.absorbed_elements // settings.tensor_parallel_size * model_bytes * layers
        parts.append(WeightPart(name="absorbed", size_bytes=size, source="vLLM 0.32 mla_attention.py W_UK, W_UV"))
    if architecture.host_bytes and settings.tables_on_gpu:
        size = -(-architecture.host_bytes // settings.tensor_parallel_size)
        parts.append(WeightPart(name="n-grams", size_bytes=size, source="vLLM 0.32 deepseek_v41/common/engram.py"))
    if settings.enable_lora:
        size = lora_bytes(architecture, settings, model_bytes)
        parts.append(WeightPart(name="lora", size_bytes=size, source="vLLM 0.32 lora/layers create_lora_weights"))
    part, doubts = _draft(architecture, settings, draft)
    return (*parts, *part), doubts


def _layers_with_latents(architecture: Architecture, settings: LaunchSettings) -> int:
    """Layers of latent attention on the stage that has most of them."""
    latent = [any(c.kind in _LATENT and c.own_element_bytes is None for c in k.caches) for k in architecture.kinds]
    stages = [0] * settings.pipeline_parallel_size
    for kind, stage in zip(architecture.layers, stage_of_layers(len(architecture.layers), settings), strict=True):
        stages[stage] += latent[kind]
    return max(stages)


_LATENT = (CacheKind.LATENT, CacheKind.SLIDING_LATENT)


def _draft(
    architecture: Architecture, settings: LaunchSettings, draft: Architecture | None
) -> tuple[tuple[WeightPart, ...], tuple[str, ...]]:
    asked = settings.draft
    if asked is None or asked.method in WITHOUT_DRAFT:
        return (), ()
    if draft is not None and not draft.kinds[0].tensors and not draft.first:
        return (), draft.approximations  # It keeps hidden states, and has no weight.
    if draft is not None:
        tp = asked.tensor_parallel_size or settings.tensor_parallel_size
        own = replace(settings, tensor_parallel_size=tp, pipeline_parallel_size=1)
        lent = _lent(draft, settings)
        counted = replace(draft, first=_without(draft.first, lent), last=_without(draft.last, lent))
        element = model_element_bytes(draft, settings)
        size = sum(stage_bytes(counted, own, draft.quantization, element))
        size += draft.absorbed_elements // tp * element * len(draft.layers)
        source = "vLLM 0.32 v1/spec_decode and the draft's own layers"
        return (WeightPart(name="draft", size_bytes=size, source=source),), draft.approximations
    if asked.method in MTP_METHODS:
        return (), (f"the MTP layers of {architecture.name} are not counted: how they are made is not known",)
    return (), ("the speculative draft model is not counted: its config is not at hand",)


def _uncounted(settings: LaunchSettings, draft: Architecture | None) -> str | None:
    """A speculative model that is not known: it may weigh as much as the model itself."""
    asked = settings.draft
    if draft is not None or asked is None or asked.method in WITHOUT_DRAFT:
        return None
    return "its MTP layers" if asked.method in MTP_METHODS else "the speculative draft model"


def _lent(draft: Architecture, settings: LaunchSettings) -> tuple[str, ...]:
    """What a draft need not hold itself; with pipeline stages it has an embedding (llm_base_proposer.py)."""
    return tuple(b for b in draft.borrows if b == "head" or settings.pipeline_parallel_size == 1)


def _without(tensors: tuple[Tensor, ...], lent: tuple[str, ...]) -> tuple[Tensor, ...]:
    names = tuple({"embedding": "model.embed_tokens", "head": "lm_head"}[b] for b in lent)
    return tuple(t for t in tensors if t.split is not Split.VOCABULARY or not t.name.startswith(names))


def lora_bytes(architecture: Architecture, settings: LaunchSettings, model_bytes: int) -> int:
    """Slots for adapters on the fullest stage: A and B of every linear layer, max_loras times, on one rank."""
    kinds = [sum(_lora_elements(t, settings) for t in k.tensors) for k in architecture.kinds]
    stages = [0] * settings.pipeline_parallel_size
    for kind, stage in zip(architecture.layers, stage_of_layers(len(architecture.layers), settings), strict=True):
        stages[stage] += kinds[kind]
    return max(stages) * settings.max_loras * model_bytes


def _lora_elements(tensor: Tensor, settings: LaunchSettings) -> int:
    """A is whole beside a column-parallel layer, B beside a row-parallel one; fully sharded, both are divided."""
    if not tensor.linear or tensor.columns == 0 or tensor.split is Split.VOCABULARY:
        return 0
    part = shard(tensor, settings)
    rank = settings.max_lora_rank
    rank_share = -(-rank // settings.tensor_parallel_size) if settings.fully_sharded_loras else rank
    if tensor.split is Split.COLUMNS:
        return part.copies * (rank * part.columns + rank_share * part.rows)
    return part.copies * (rank_share * part.columns + rank * part.rows)


def _with_files(counted: Weights, architecture: Architecture, files: Sequence[WeightFile]) -> Weights:
    """The parameters that the files have, where all headers were read and nothing is packed."""
    read = [f for f in files if f.format == "safetensors" and f.parameters is not None]
    if len(read) != len(files) or architecture.quantization is not None:
        return counted
    parameters = sum(f.parameters or 0 for f in read)
    if parameters == counted.parameters or not parameters:
        return counted
    if abs(parameters - counted.parameters) <= counted.parameters * 0.02:
        return replace(counted, parameters=parameters)
    scale = parameters / counted.parameters
    doubt = "the files hold other tensors than the config tells; sizes follow the files"
    return replace(
        counted,
        parameters=parameters,
        total_bytes=int(counted.total_bytes * scale),
        per_gpu_bytes=int(counted.per_gpu_bytes * scale),
        stages=tuple(int(s * scale) for s in counted.stages),
        exact=False,
        approximations=(*counted.approximations, doubt),
    )
