"""Quantized copies of listed models, by the names that their publishers give them."""

from collections.abc import Mapping, Set
from typing import Any, NamedTuple


class Variant(NamedTuple):
    """A variant's base (as the index has it) and the quantization config that its publisher's files hold."""

    base: str
    quantization: Mapping[str, Any]
    note: str


# What publishers add to the name of their own quantized checkpoints, the largest first.
QUANTIZED_SUFFIXES = ("-FP8", "-GPTQ-Int8", "-AWQ", "-GPTQ-Int4")

# What the publishers' recipes leave in 16 bits (github.com/vllm-project/llm-compressor, examples/): the head, routers,
# encoders of images, and the attention of Llama 4.
_LEFT_OUT = ("lm_head", "re:.*router.*", "re:.*mlp.gate$", "re:.*vision.*", "re:.*projector.*")
_LEFT_OUT_OF = {"llama-4": ("re:.*self_attn.*",)}


def _compressed(
    form: str, bits: int, kind: str, strategy: str, group: int | None, dynamic: bool | None
) -> dict[str, Any]:
    """A compressed-tensors config of one group over all linear layers (github.com/vllm-project/compressed-tensors)."""
    activations = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": "token" if dynamic else "tensor"}
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": strategy, "group_size": group}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "ignore": list(_LEFT_OUT),
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**weights, "dynamic": False},
                "input_activations": None if dynamic is None else {**activations, "dynamic": dynamic},
            }
        },
    }


_COMPRESSED: Mapping[str, Mapping[str, Any]] = {
    "-fp8-dynamic": _compressed("float-quantized", 8, "float", "channel", None, dynamic=True),
    "-fp8": _compressed("float-quantized", 8, "float", "tensor", None, dynamic=False),
    "-quantized.w8a8": _compressed("int-quantized", 8, "int", "channel", None, dynamic=True),
    "-quantized.w8a16": _compressed("pack-quantized", 8, "int", "channel", None, dynamic=None),
    "-quantized.w4a16": _compressed("pack-quantized", 4, "int", "group", 128, dynamic=None),
}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}


def _gptq(bits: int) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": 128, "desc_act": False, "sym": True}


_FP8_BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "fmt": "e4m3"}

# Publishers whose quantized repositories keep the base's name and add one of these (RedHatAI was neuralmagic).
_NAMINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "redhatai": _COMPRESSED,
    "neuralmagic": _COMPRESSED,
    "nm-testing": _COMPRESSED,
    "qwen": {"-fp8": _FP8_BLOCKS, "-awq": _AWQ, "-gptq-int4": _gptq(4), "-gptq-int8": _gptq(8)},
    "thebloke": {"-awq": _AWQ, "-gptq": _gptq(4)},
    "casperhansen": {"-awq": _AWQ},
    "hugging-quants": {"-awq-int4": _AWQ, "-gptq-int4": _gptq(4)},
}


def variant_of(name: str, known: Set[str]) -> Variant | None:
    """The variant that the name is of, with `known` ids in lower case; None where it follows no known naming."""
    publisher, _, last = name.lower().partition("/")
    suffixes = _NAMINGS.get(publisher, {})
    suffix = max((s for s in suffixes if last.endswith(s)), key=len, default=None)
    if suffix is None:
        return None
    stem = last.removesuffix(suffix)
    base = next((k for k in sorted(known) if k.rpartition("/")[2] in (stem, f"{stem}-hf")), None)
    if base is None:
        return None
    quantization = dict(suffixes[suffix])
    if "ignore" in quantization:
        more = next((names for family, names in _LEFT_OUT_OF.items() if stem.startswith(family)), ())
        quantization["ignore"] = [*_LEFT_OUT, *more]
    return Variant(base, quantization, f"{base} with the quantization that the name says")
