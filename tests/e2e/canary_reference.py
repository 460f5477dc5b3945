"""The canary on a small Llama in torch, whole and with one fault at a time; run by an interpreter that has torch.

Usage: canary_reference.py MODEL < CASES, where CASES is a JSON list of `{"prompt", "expected"}` and, where wanted,
`"fault"`, `"dtype"` and `"chunk"`; prints a JSON list of `{"text", "margin"}`: the greedy answer up to its end or its
first token that is not expected, and by how much the least sure token won. The cache is paged as vLLM's is: blocks of
16 in no order.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

BLOCK = 16


class Llama:
    """One request on the model in `folder`, computed in `dtype`, with the fault of that name ("" for none)."""

    def __init__(self, folder: Path, dtype: str, fault: str) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        # As backends do that have keys and values as 8-bit floats; with "queries" those as well.
        dtype, _, self.too = dtype.partition(" ")
        self.cached = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}.get(dtype)
        self.dtype = torch.bfloat16 if self.cached else getattr(torch, dtype)
        weights = load_file(folder / "model.safetensors")
        self.weights = {name: tensor.to(self.dtype) for name, tensor in weights.items()}
        kind, _, name = fault.partition(": ")
        if kind == "zeros":
            self.weights[name].zero_()
        elif kind == "rows lost":
            name, _, start = name.partition("@")
            self.weights[name][int(start) : int(start) + 16] = 0
        elif kind == "shards displaced":
            # A rank has rows of most matrices, and columns of those that its results are added up after.
            side = 1 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0
            self.weights[name] = self.weights[name].roll(self.weights[name].shape[side] // 8, side)
        self.fault = fault
        self.heads, self.groups = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        self.size = self.config["head_dim"]
        # Odd blocks first: logical and physical order differ.
        blocks = self.config["max_position_embeddings"] // BLOCK
        self.table = torch.tensor([*range(1, blocks, 2), *range(0, blocks, 2)])
        shape = (self.config["num_hidden_layers"], 2, blocks * BLOCK, self.groups, self.size)
        self.cache = torch.zeros(shape, dtype=self.dtype)

    def is_(self, *faults: str) -> bool:
        """Whether the fault is one of these."""
        return self.fault in faults

    def slots(self, positions: torch.Tensor) -> torch.Tensor:
        """Where in the cache these positions are."""
        return self.table[positions // BLOCK] * BLOCK + positions % BLOCK

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """RMSNorm, computed in float32."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        weight = 1.0 if self.is_("norm weights ignored") else self.weights[name]
        return wide.to(self.dtype) * weight

    def rotated(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Rotary embedding, the halves of a head turned against each other."""
        if self.is_("no rotary"):
            return x
        theta = 10000.0 if self.is_("rotary of another base") else self.config["rope_theta"]
        frequency = theta ** (-torch.arange(0, self.size, 2, dtype=torch.float32) / self.size)
        at = positions.to(torch.bfloat16).float() if self.is_("positions in bfloat16") else positions.float()
        if self.is_("positions of decoding off by one") and len(positions) == 1:
            at = at + 1
        angles = at[:, None, None] * frequency
        cos, sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        if self.is_("rotary by neighbours"):
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def stored(self, layer: int, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor) -> None:
        """Write keys and values into the cache."""
        decoding = len(positions) == 1
        if decoding and self.is_("writes of decoding lost"):
            return
        slots = self.slots(positions)
        if decoding and self.is_("writes of decoding one slot off"):
            slots = slots + 1
        if not decoding and self.is_("last token of the prompt not written"):
            slots, keys, values = slots[:-1], keys[:-1], values[:-1]
        if not decoding and self.is_("last block of the prompt not written"):
            last = len(positions) // BLOCK * BLOCK
            slots, keys, values = slots[:last], keys[:last], values[:last]
        for kind, new in enumerate((keys, values)):
            held = new.to(self.cached).to(self.dtype) if self.cached else new
            self.cache[layer, kind, slots] = held

    def held(self, layer: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read keys and values of the first positions."""
        positions = torch.arange(length)
        if self.is_("blocks swapped"):
            positions = torch.where(positions // BLOCK == 2, positions + BLOCK, positions)
        slots = self.slots(positions)
        if self.is_("layers share a cache"):
            layer = 0
        keys, values = self.cache[layer, 0, slots], self.cache[layer, 1, slots]
        if self.is_("block of values lost"):
            values = torch.where((positions // BLOCK == 3)[:, None, None], 0, values)
        if self.is_("keys and values swapped"):
            keys, values = values, keys
        return keys, values

    def attention(self, layer: int, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Attention over the paged cache."""
        prefix = f"model.layers.{layer}.self_attn."
        q, k, v = (x @ self.weights[f"{prefix}{name}_proj.weight"].T for name in "qkv")
        q = self.rotated(q.view(len(x), self.heads, self.size), positions)
        if self.cached and self.too == "queries":
            q = q.to(self.cached).to(self.dtype)
        k = self.rotated(k.view(len(x), self.groups, self.size), positions)
        self.stored(layer, k, v.view(len(x), self.groups, self.size), positions)
        length = int(positions[-1]) + 1
        if self.is_("newest token not read"):
            length = max(1, length - 1)
        keys, values = self.held(layer, length)
        group = torch.arange(self.heads) * self.groups // self.heads
        if self.is_("KV heads dealt round"):
            group = torch.arange(self.heads) % self.groups
        keys, values = keys[:, group], values[:, group]
        scale = self.size**-0.5 * (0.1 if self.is_("softmax scaled down") else 1.0)
        scores = torch.einsum("qhd,khd->hqk", q.float(), keys.float()) * scale
        seen = self.seen(positions, length)
        out = self.weighted(scores.masked_fill(~seen, -torch.inf), values)
        return self.damaged(layer, out).flatten(1) @ self.weights[f"{prefix}o_proj.weight"].T

    def seen(self, positions: torch.Tensor, length: int) -> torch.Tensor:
        """The causal mask, by query and key."""
        key = torch.arange(length)[None, :]
        if self.is_("future seen"):
            return torch.ones(len(positions), length, dtype=torch.bool)
        if self.is_("mask off by one") and length > 1:
            return key < positions[:, None] + (positions[:, None] == 0)
        if self.is_("window of 64"):
            return (key <= positions[:, None]) & (key > positions[:, None] - 64)
        return key <= positions[:, None]

    def weighted(self, scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Softmax and sum."""
        if self.is_("partial sums averaged") and scores.shape[-1] > 64:
            half = scores.shape[-1] // 2
            parts = [scores[..., :half].softmax(-1) / 2, scores[..., half:].softmax(-1) / 2]
            weights = torch.cat(parts, -1).nan_to_num()
        elif self.is_("no softmax"):
            weights = torch.full_like(scores, 1 / scores.shape[-1])
        else:
            weights = scores.softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights.to(self.dtype).float(), values.float()).to(self.dtype)

    def damaged(self, layer: int, out: torch.Tensor) -> torch.Tensor:
        """The heads' results, with those of the fault lost."""
        keep = torch.ones(self.heads, self.size)
        for head in range(self.heads):
            if self.is_(f"head {head} of layer {layer} lost"):
                keep[head] = 0
        if self.is_(f"attention of layer {layer} lost", "attention lost"):
            keep[:] = 0
        if self.is_("second half of the heads lost"):
            keep[self.heads // 2 :] = 0
        for rank in range(self.heads):
            if self.is_(f"rank {rank} of 8 lost"):
                keep[rank] = 0
        if self.is_("second half of each head lost"):
            keep[:, self.size // 2 :] = 0
        if self.is_("sixteen values of each head lost"):
            keep[:, 48:64] = 0
        return out * keep.to(self.dtype)

    def mlp(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """The gated MLP."""
        prefix = f"model.layers.{layer}.mlp."
        gate, up = (x @ self.weights[f"{prefix}{name}_proj.weight"].T for name in ("gate", "up"))
        if self.is_("gate and up swapped"):
            gate, up = up, gate
        hidden = torch.nn.functional.silu(gate) * up if not self.is_("no activation") else gate * up
        width = hidden.shape[-1]
        if self.is_("second half of the MLPs lost"):
            hidden[:, width // 2 :] = 0
        for rank in range(8):
            if self.is_(f"rank {rank} of 8 lost"):
                hidden[:, rank * width // 8 : (rank + 1) * width // 8] = 0
        if self.is_(f"MLP of layer {layer} lost"):
            hidden = torch.zeros_like(hidden)
        return hidden @ self.weights[f"{prefix}down_proj.weight"].T

    def embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embedding, without the rows of a lost shard."""
        found = self.weights["model.embed_tokens.weight"][tokens]
        if self.is_("shard of the embedding lost"):
            rows = self.config["vocab_size"] // 8
            found = torch.where((tokens // rows == 3)[:, None], 0, found)
        return found

    def logits(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        """The logits after the last of these tokens, which stand from `start` on."""
        positions = torch.arange(start, start + len(tokens))
        x = self.embedded(tokens)
        for layer in range(self.config["num_hidden_layers"]):
            if self.is_(f"layer {layer} left out"):
                continue
            prefix = f"model.layers.{layer}."
            x = x + self.attention(layer, self.norm(x, f"{prefix}input_layernorm.weight"), positions)
            x = x + self.mlp(layer, self.norm(x, f"{prefix}post_attention_layernorm.weight"))
        last = x[-1:] if not self.is_("logits of another token") else x[:1]
        found = (self.norm(last, "model.norm.weight") @ self.weights["lm_head.weight"].T)[0].float()
        if self.is_("shard of the head lost"):
            rows = len(found) // 8
            found[5 * rows : 6 * rows] = 0
        return found

    def answer(self, prompt: list[int], expected: list[int], chunk: int) -> tuple[list[int], float]:
        """The greedy answer as far as it is expected, the prompt prefilled by chunks; and the smallest margin."""
        for start in range(0, len(prompt), chunk):
            found = self.logits(torch.tensor(prompt[start : start + chunk]), start)
        tokens: list[int] = []
        margins = []
        while len(tokens) < len(expected):
            best = found.topk(2)
            margins.append(float(best.values[0] - best.values[1]))
            tokens.append(int(best.indices[0]))
            if tokens != expected[: len(tokens)]:
                break
            found = self.logits(torch.tensor(tokens[-1:]), len(prompt) + len(tokens) - 1)
        return tokens, min(margins)


def main() -> None:
    """Answer each case."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    answers = []
    for case in json.load(sys.stdin):
        prompt, expected = (tokenizer.encode(case[n], add_special_tokens=False).ids for n in ("prompt", "expected"))
        with torch.inference_mode():
            model = Llama(folder, case.get("dtype", "float32"), case.get("fault", ""))
            tokens, margin = model.answer(prompt, expected, case.get("chunk", len(prompt)))
        answers.append({"text": tokenizer.decode(tokens, skip_special_tokens=False), "margin": margin})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
