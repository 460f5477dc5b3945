"""Writes the canary: a tiny Llama whose weights are constructed so that its right answers are known.

Usage: make_canary.py [--check] (standard library; the same bytes every time; `--check` compares and writes nothing).

The canary repeats what the assistant said before, character by character, and it can only do so by computing right. Its
chat template shows it one answer (a sentence, or with tools a call); the weights hold neither. For each character the
model finds the place in the prompt that the last four tokens were at before, and writes what followed there:

    layer 0, attention   each head looks 1 to 4 tokens back, by rotary angles alone, and fetches that token's code; one
                         looks ahead, which the causal mask turns to the token itself, and another, that looks at the
                         token itself, takes that away again
    layer 0, MLP         makes the fetched bits whole; what was fetched half, or from two places, stays out
    layer 1, attention   compares the last four tokens (64 bits) with what stands before every place (64 bits); each
                         head brings two bits of the code found there. <s> is a sink that matches nearly as well: any
                         bits that are missing send every head there, and it holds nothing
    layer 1, MLP         one unit for each printable character; opens for its whole code only, and writes the answer
    head                 reads the answer; without one, weakly, the current token: garbage is "\\n\\n\\n..."

So an attention that brings zeros, a wrong position, a cache block written or read in the wrong place, a head that goes
to the wrong KV head, an MLP or a partial sum that is lost between GPUs each change the text, and rounding does not:
the thresholds lie far from what bfloat16, float16 and an 8-bit KV cache do to the numbers.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

from canary_parts import weights
from canary_parts.tokens import BEGIN, END, TEMPLATE, VOCABULARY, tokenizer

FOLDER = Path(__file__).parent.parent / "vllm_doctor" / "trial" / "canary" / "model"

POSITIONS = 4096


def bfloat16(value: float) -> int:
    """The nearest bfloat16, as its bits."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def safetensors(found: dict[str, weights.Matrix]) -> bytes:
    """A safetensors file of bfloat16 tensors; vectors are matrices of one row here."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, matrix in found.items():
        numbers = [bfloat16(value) for row in matrix for value in row]
        data = struct.pack(f"<{len(numbers)}H", *numbers)
        shape = [len(matrix), len(matrix[0])] if not name.endswith("norm.weight") else [len(matrix[0])]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


# float32 lets every release choose what the device can do: bfloat16, or float16 below compute capability 8.0.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": weights.HIDDEN,
    "intermediate_size": weights.WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": weights.HEADS,
    "num_key_value_heads": weights.KV_HEADS,
    "head_dim": weights.HEAD,
    "max_position_embeddings": POSITIONS,
    "rope_theta": weights.ROPE_THETA,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "torch_dtype": "float32",
}


def files() -> dict[str, bytes]:
    """The model folder, by file name."""
    named = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>"}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    documents: dict[str, object] = {
        "config.json": CONFIG,
        "generation_config.json": {"bos_token_id": BEGIN, "eos_token_id": END},
        "special_tokens_map.json": named,
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": settings,
    }
    written = {name: (json.dumps(value, indent=1) + "\n").encode() for name, value in documents.items()}
    return written | {"model.safetensors": safetensors(weights.tensors())}


def main(arguments: list[str]) -> int:
    """Write the folder, or compare it."""
    wanted = files()
    digest = hashlib.sha256(b"".join(wanted[name] for name in sorted(wanted))).hexdigest()
    told = f"{FOLDER}: {sum(map(len, wanted.values()))} bytes, revision {digest[:16]}"
    if arguments == ["--check"]:
        stale = [name for name, data in wanted.items() if not _same(FOLDER / name, data)]
        print(f"{told}; {', '.join(stale) or 'nothing'} differs", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in wanted.items():
        (FOLDER / name).write_bytes(data)
    print(told)
    return 0


def _same(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
