"""Small real model folders: a Llama of two layers with safetensors, a byte tokenizer and a chat template."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HIDDEN, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY, LAYERS = 16, 4, 2, 4, 32, 24, 2
SPECIAL = ("<s>", "</s>", "<tool_call>", "</tool_call>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"

CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


def llama_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the model."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}{norm}.weight": (HIDDEN,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {
            f"{prefix}self_attn.q_proj.weight": (HEADS * HEAD, HIDDEN),
            f"{prefix}self_attn.k_proj.weight": (KV_HEADS * HEAD, HIDDEN),
            f"{prefix}self_attn.v_proj.weight": (KV_HEADS * HEAD, HIDDEN),
            f"{prefix}self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD),
            f"{prefix}mlp.gate_proj.weight": (INNER, HIDDEN),
            f"{prefix}mlp.up_proj.weight": (INNER, HIDDEN),
            f"{prefix}mlp.down_proj.weight": (HIDDEN, INNER),
        }
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def write_json(path: Path, value: object) -> None:
    """Write a value as a JSON file."""
    path.write_text(json.dumps(value), encoding="utf-8")


def write_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write bfloat16 tensors of zeros, as safetensors lays them out."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


def write_tokenizer(folder: Path, template: object = TEMPLATE) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    added = [{"id": number, "content": token, "special": True} for number, token in enumerate(SPECIAL)]
    write_json(folder / "tokenizer.json", {"version": "1.0", "added_tokens": added, "model": {"vocab": {}}})
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    write_json(folder / "tokenizer_config.json", config if template is None else config | {"chat_template": template})


def llama(folder: Path, **changes: object) -> Path:
    """A whole model; `changes` replace keys of its config."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {**CONFIG, **changes})
    write_json(folder / "generation_config.json", {"eos_token_id": 1})
    write_safetensors(folder / "model.safetensors", llama_shapes())
    write_tokenizer(folder)
    return folder


def sharded(folder: Path) -> Path:
    """The same model in two files with an index."""
    llama(folder)
    (folder / "model.safetensors").unlink()
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    shapes = llama_shapes()
    first = dict(list(shapes.items())[:10])
    write_safetensors(folder / names[0], first)
    write_safetensors(folder / names[1], {n: s for n, s in shapes.items() if n not in first})
    weight_map = {name: names[0] if name in first else names[1] for name in shapes}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return folder


def adapter(folder: Path, rank: int = 8, modules: tuple[str, ...] = ("q_proj", "v_proj"), **changes: object) -> Path:
    """A LoRA adapter for the model."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": "acme/llama", "r": rank, "lora_alpha": 16}
    write_json(folder / "adapter_config.json", {**config, "target_modules": list(modules), **changes})
    shapes: dict[str, tuple[int, ...]] = {}
    for module in modules:
        prefix = f"base_model.model.model.layers.0.self_attn.{module}."
        shapes |= {f"{prefix}lora_A.weight": (rank, HIDDEN), f"{prefix}lora_B.weight": (HIDDEN, rank)}
    write_safetensors(folder / "adapter_model.safetensors", shapes)
    return folder


def cached(cache: Path, repo_id: str, commit: str = "a" * 40, revision: str = "main") -> Path:
    """An empty snapshot of a repository in a hub cache; its folder."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / revision).write_text(commit, encoding="ascii")
    return folder
