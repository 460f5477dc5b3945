"""Checks of the weights against the config: layers that are in no file, and shapes of another model."""

from collections.abc import Iterable, Iterator, Mapping

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import Model, ModelConfig, ModelSource
from vllm_doctor.finding import Finding, Fix, error
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.model_facts import config_of, model_of

# Architectures whose layers are all alike, so that a module of one layer must be in every other: decoders without
# alternating blocks (the model files of vLLM 0.32 build each layer by the same class with the same parts).
ALIKE = frozenset(
    {
        "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM",
        "GemmaForCausalLM", "Gemma2ForCausalLM", "MixtralForCausalLM", "GraniteForCausalLM", "OlmoForCausalLM",
        "Olmo2ForCausalLM", "StableLmForCausalLM", "InternLM2ForCausalLM", "Starcoder2ForCausalLM",
        "CohereForCausalLM", "GlmForCausalLM", "Glm4ForCausalLM",
    }
)  # fmt: skip
# Those with Llama's names and shapes of the attention and the MLP (transformers 4.57 and 5.19 modeling_*.py).
LLAMA_SHAPED = frozenset(
    {
        "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "GemmaForCausalLM",
        "Gemma2ForCausalLM",
    }
)  # fmt: skip
LAYER_WORDS = ("layers", "h", "blocks")
# Where decoders keep their layers; stacks of other names (of images, sound, drafts) are not counted.
STACKS = frozenset(
    {
        "model.layers", "layers", "model.language_model.layers", "language_model.model.layers",
        "language_model.layers", "model.text_model.layers", "llm.model.layers", "model.model.layers", "transformer.h",
        "h", "model.decoder.layers", "gpt_neox.layers", "backbone.layers", "transformer.blocks", "transformer.layers",
    }
)  # fmt: skip
WEIGHTS = frozenset({"weight", "qweight", "weight_packed", "weight_scale", "scales", "blocks"})
AGAIN = Fix(title="Download the weights again, or save the checkpoint again with all its layers")


@check("model-tensors", causes=("model-files-incomplete",), needs=("model",))
def model_tensors(snapshot: Snapshot) -> Iterator[Finding]:
    """The weights lack layers that the config counts, or have the shapes of another model.

    Why: vLLM loads what is in the files. Layers that are in none stay as they were allocated: the server starts, and
    answers rubbish. Shapes that do not fit the config end the load with "size of tensor a must match".
    Fix: take config.json and the weights of one and the same model; download or save the checkpoint again.
    """
    model, config = model_of(snapshot), config_of(snapshot)
    shapes = _shapes(model)
    layers = _language_layers(shapes)
    if missing := _missing_layers(layers, config):
        yield missing
        return
    if ALIKE.isdisjoint(config.architectures):
        return
    if incomplete := _incomplete_layers(layers):
        yield incomplete
        return
    if beyond := _layers_beyond(layers, config):
        yield beyond
        return
    if misfits := tuple(_misfits(shapes, layers, config)):
        yield _wrong_shapes(model, misfits)


def _shapes(model: Model) -> Mapping[str, tuple[int, ...]]:
    if model.tensor_shapes is not None:
        return model.tensor_shapes
    if model.source is ModelSource.NOWHERE:
        raise NotApplicable("the model was not found")
    if model.weight_files and all(w.format != "safetensors" for w in model.weight_files):
        raise NotApplicable("the weights are no safetensors: their names stand in no header")
    if model.source is ModelSource.HUB:
        raise NotKnown("the weights are on the hub: no headers were read")
    raise NotKnown("not all safetensors headers could be read")


def _language_layers(names: Iterable[str]) -> dict[int, set[str]]:
    """By number of the layer, the names of its parts; of several stacks the longest."""
    stacks: dict[str, dict[int, set[str]]] = {}
    for name in names:
        parts = name.split(".")
        for place, word in enumerate(parts[:-2]):
            number = parts[place + 1]
            if word in LAYER_WORDS and number.isdecimal() and len(number) < 6:
                prefix = ".".join(parts[: place + 1])
                if prefix in STACKS:
                    stacks.setdefault(prefix, {}).setdefault(int(number), set()).add(".".join(parts[place + 2 :]))
                break
    return max(stacks.values(), key=len, default={})


def _missing_layers(layers: Mapping[int, set[str]], config: ModelConfig) -> Finding | None:
    count = config.num_hidden_layers
    # Puzzle and NAS models leave whole blocks out on purpose, and say so in `block_configs`.
    if not layers or count is None or count > 10_000 or config.is_encoder_decoder or "block_configs" in config.text():
        return None
    gone = sorted(set(range(count)) - set(layers))
    if not gone:
        return None
    return error(
        "model-files-incomplete",
        f"{len(gone)} of {count} layers are in no weight file",
        evidence=(
            f"config.json: num_hidden_layers {count}",
            f"the headers hold {len(layers)} layers, {min(layers)} to {max(layers)}; missing: {_listed(gone)}",
            "vLLM loads this without a word, and the missing layers hold no trained weights",
        ),
        fixes=(AGAIN,),
    )


def _layers_beyond(layers: Mapping[int, set[str]], config: ModelConfig) -> Finding | None:
    """Layers that the config does not count: vLLM has no module for them, and the load ends.

    Checkpoints with layers for drafting (MTP) have other architectures than those that are compared here.
    """
    count = config.num_hidden_layers
    if not layers or count is None or max(layers) < count:
        return None
    beyond = sorted(number for number in layers if number >= count)
    return error(
        "model-files-incomplete",
        f"The weights have {len(layers)} layers, and config.json counts {count}",
        evidence=(f"config.json: num_hidden_layers {count}", f"in the headers besides: layer {_listed(beyond)}"),
        fixes=(Fix(title="Take the config.json that belongs to the weights"), AGAIN),
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers[:8]) + (", ..." if len(numbers) > 8 else "")


def _incomplete_layers(layers: Mapping[int, set[str]]) -> Finding | None:
    modules = {number: {m for p in parts if (m := _module(p))} for number, parts in layers.items()}
    expected = set().union(*modules.values()) if modules else set()
    lacking = {number: sorted(expected - found) for number, found in sorted(modules.items()) if expected - found}
    if not lacking:
        return None
    number, gone = next(iter(lacking.items()))
    return error(
        "model-files-incomplete",
        f"Layer {number} lacks {', '.join(gone[:4])}" if len(lacking) == 1 else f"{len(lacking)} layers lack tensors",
        evidence=(
            f"layers of this architecture are all alike; layer {number} has no {', '.join(gone[:8])}",
            "vLLM loads this without a word, and the missing tensors hold no trained weights",
        ),
        fixes=(AGAIN,),
    )


def _module(part: str) -> str:
    """`self_attn.q_proj` of its weight, however that is quantized; of experts (which may be folded) only the kind."""
    module, _, last = part.rpartition(".")
    if last not in WEIGHTS or "rotary" in module:
        return ""
    before, experts, _ = module.partition(".experts.")
    return f"{before}.experts" if experts else module


def _misfits(
    shapes: Mapping[str, tuple[int, ...]], layers: Mapping[int, set[str]], config: ModelConfig
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...], str]]:
    """Tensors whose shape is not what the config implies: name, shape, the shape it should have, and why."""
    hidden, vocabulary = config.hidden_size, config.vocab_size
    embedding = next((s for n, s in shapes.items() if n in EMBEDDINGS), None)
    if embedding is not None and hidden and vocabulary and len(embedding) == 2 and embedding != (vocabulary, hidden):
        name = next(n for n in shapes if n in EMBEDDINGS)
        yield name, embedding, (vocabulary, hidden), f"vocab_size {vocabulary}, hidden_size {hidden}"
    if LLAMA_SHAPED.isdisjoint(config.architectures) or config.quantization_method or not hidden:
        return
    for part, wanted, why in _llama_parts(config, hidden):
        name = f"model.layers.{min(layers, default=0)}.{part}.weight"
        if name in shapes and shapes[name] != wanted:
            yield name, shapes[name], wanted, why


EMBEDDINGS = frozenset({"model.embed_tokens.weight", "embed_tokens.weight", "language_model.model.embed_tokens.weight"})


def _llama_parts(config: ModelConfig, hidden: int) -> Iterator[tuple[str, tuple[int, int], str]]:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    is_llama = "LlamaForCausalLM" in config.architectures
    inner = config.text().get("intermediate_size")
    if isinstance(inner, int):
        yield "mlp.gate_proj", (inner, hidden), f"intermediate_size {inner}, hidden_size {hidden}"
        yield "mlp.down_proj", (hidden, inner), f"hidden_size {hidden}, intermediate_size {inner}"
    # Other classes than Llama's have a head size or a number of KV heads of their own where the config names none.
    if not heads or not ((config.head_dim and kv_heads) or is_llama):
        return
    if hidden % heads or heads % (kv_heads or heads):
        return  # config.json contradicts itself: another check says so
    size, kv_heads = config.head_dim or hidden // heads, kv_heads or heads
    yield "self_attn.q_proj", (heads * size, hidden), f"{heads} heads of {size}, hidden_size {hidden}"
    yield "self_attn.k_proj", (kv_heads * size, hidden), f"{kv_heads} KV heads of {size}, hidden_size {hidden}"
    yield "self_attn.o_proj", (hidden, heads * size), f"hidden_size {hidden}, {heads} heads of {size}"


def _wrong_shapes(model: Model, misfits: tuple[tuple[str, tuple[int, ...], tuple[int, ...], str], ...]) -> Finding:
    name, found, wanted, _ = misfits[0]
    return error(
        "model-files-incomplete",
        f"config.json and the weights are of different models: {name} is {_by(found)}, the config says {_by(wanted)}",
        evidence=tuple(f"{n}: {_by(f)} in the file; config.json: {_by(w)} ({why})" for n, f, w, why in misfits[:6]),
        fixes=(
            Fix(title=f"Take the config.json that belongs to the weights in {model.path or model.given}"),
            Fix(title="Download both again from one repository and one revision"),
        ),
    )


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
