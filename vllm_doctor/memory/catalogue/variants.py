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

# Publishers whose quantized repositories keep the base's name and add one of the suffixes (RedHatAI was neuralmagic).
_PUBLISHERS = frozenset({"redhatai", "neuralmagic", "nm-testing", "qwen"})


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


# The longest suffix that ends the name counts.
_SUFFIXES: Mapping[str, Mapping[str, Any]] = {
    "-fp8-dynamic": _compressed("float-quantized", 8, "float", "channel", None, dynamic=True),
    "-fp8": _compressed("float-quantized", 8, "float", "tensor", None, dynamic=False),
    "-quantized.w8a8": _compressed("int-quantized", 8, "int", "channel", None, dynamic=True),
    "-quantized.w8a16": _compressed("pack-quantized", 8, "int", "channel", None, dynamic=None),
    "-quantized.w4a16": _compressed("pack-quantized", 4, "int", "group", 128, dynamic=None),
}


def variant_of(name: str, known: Set[str]) -> Variant | None:
    """The variant that the name is of, with `known` ids in lower case; None where it follows no known naming."""
    publisher, _, last = name.lower().partition("/")
    suffix = max((s for s in _SUFFIXES if last.endswith(s)), key=len, default=None)
    if publisher not in _PUBLISHERS or suffix is None:
        return None
    stem = last.removesuffix(suffix)
    base = next((k for k in sorted(known) if k.rpartition("/")[2] == stem), None)
    if base is None:
        return None
    more = next((names for family, names in _LEFT_OUT_OF.items() if stem.startswith(family)), ())
    quantization = {**_SUFFIXES[suffix], "ignore": [*_LEFT_OUT, *more]}
    return Variant(base, quantization, f"{base} with the quantization that the name says")
