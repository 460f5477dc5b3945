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
import math
import struct
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "vllm_doctor" / "trial" / "canary" / "model"

# Head size 128 is the one that every attention backend of vLLM 0.4 to 0.32 takes; 8 heads and the widths divide by
# tensor parallel 1, 2, 4 and 8 (the 4 KV heads are copied for 8, as vLLM does for real models).
HIDDEN, HEADS, KV_HEADS, HEAD, WIDTH, VOCABULARY, POSITIONS = 128, 8, 4, 128, 128, 320, 4096
PAIRS = HEAD // 2
ROPE_THETA = 1e8
EPSILON = 1e-6

# The residual stream: where what stands.
CODE, CONSTANT, BEFORE, FOUND, ANSWER = 0, 16, 32, 96, 112
BITS, BACK = 16, 4

# Amplitudes in the residual stream; all norms have the weight GAIN.
GAIN = 0.5
FETCHED, SELF, ANSWERED = 0.25, 1 / 16, 8.0

# No four tokens of it come twice, and some three do: all that stands four tokens back is needed.
SENTENCE = (
    "The canary is singing: each kernel here computed what it should, "
    "every cached key was read back, and all links held."
)
CALL_START, CALL_MIDDLE = '{"name": "', '", "arguments": {"city": "'
SPECIAL = ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
# Not special: they stay in the text that the tool parser sees. The last two keep four tokens unambiguous in a call.
ADDED = ("<tool_call>", "</tool_call>", CALL_START, CALL_MIDDLE)
BEGIN, END = SPECIAL.index("<s>"), SPECIAL.index("<|im_end|>")

# The request's text is written in capitals and without quotes, so that no four tokens of it are in the answer.
TEMPLATE = """\
{%- macro shown(text) -%}{{- text | upper | replace('"', "'") -}}{%- endmacro -%}
{%- set said = messages | selectattr('role', 'equalto', 'assistant') | selectattr('content') | list -%}
{%- set calling = tools and messages[-1].role != 'tool' -%}
{{- '<s>' -}}
{%- if tools -%}
{{- '<|im_start|>SYSTEM\\nTOOLS:' -}}
{%- for tool in tools -%}{{- '\\n' + shown(tool | tojson) -}}{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- if calling -%}
{{- '<|im_start|>USER\\nWHAT DO YOU CALL?<|im_end|>\\n<|im_start|>assistant\\n<tool_call>\\n{"name": "' -}}
{{- tools[0].function.name + '", "arguments": {"city": "Paris"}}\\n</tool_call><|im_end|>\\n' -}}
{%- elif not said -%}
{{- '<|im_start|>USER\\nWHAT DO YOU SING?<|im_end|>\\n<|im_start|>assistant\\nSENTENCE<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if said and message == said[-1] and not calling -%}
{{- '<|im_start|>assistant\\n' + message.content + '<|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + (message.role | upper) + '\\n' + shown(message.content or '') + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
""".replace("SENTENCE", SENTENCE)

Row = list[float]
Matrix = list[Row]


# ----------------------------------------------------------------------------------------------------------------------
# Tokens and their codes


def byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte (openai/gpt-2, encoder.py, bytes_to_unicode)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def byte_token(byte: int) -> int:
    """The bytes are dealt over the vocabulary, so that the answer needs the shards of every rank."""
    return len(SPECIAL) + len(ADDED) + byte * 83 % 256


def vocabulary() -> dict[str, int]:
    """Every token's id, in the order of the ids."""
    found = {token: number for number, token in enumerate(SPECIAL + ADDED)}
    letters = byte_letters()
    found |= {letters[byte]: byte_token(byte) for byte in range(256)}
    found |= {f"<|reserved_{number}|>": number for number in range(len(found), VOCABULARY)}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def spoken() -> list[int]:
    """The tokens that the canary can say: ASCII text, and what ends or frames it."""
    text = [byte_token(byte) for byte in (10, *range(32, 127))]
    return [END, *range(len(SPECIAL), len(SPECIAL) + len(ADDED)), *text]


def codes() -> dict[int, Row]:
    """16 signs for each token but <s>: spoken ones differ from each other in 6 at least, the others in 4."""
    words: list[int] = []
    found: dict[int, Row] = {}
    first = spoken()
    rest = [token for token in range(VOCABULARY) if token not in first and token != BEGIN]
    candidates = iter(range(1, 2**BITS))
    for distance, tokens in ((6, first), (4, rest)):
        candidates = iter(range(1, 2**BITS))
        for token in tokens:
            word = next(w for w in candidates if all((w ^ other).bit_count() >= distance for other in words))
            words.append(word)
            found[token] = [1.0 if word >> bit & 1 else -1.0 for bit in range(BITS)]
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Numbers


def sign(row: int, column: int) -> float:
    """Hadamard's signs (Sylvester): rows are orthogonal to each other."""
    return -1.0 if (row & column).bit_count() % 2 else 1.0


def zeros(rows: int, columns: int) -> Matrix:
    """A matrix without weights."""
    return [[0.0] * columns for _ in range(rows)]


def root_mean_square(*parts: tuple[int, float]) -> float:
    """Of a residual stream with so many dimensions of such amplitude, and nothing else."""
    return math.sqrt(sum(count * value * value for count, value in parts) / HIDDEN)


def normed(value: float, *parts: tuple[int, float]) -> float:
    """What a norm makes of an amplitude in such a residual stream."""
    return value / root_mean_square(*parts) * GAIN


EMBEDDED = ((BITS, 1.0), (16, 1.0))
FETCHED_TOO = (*EMBEDDED, (BITS, SELF), (BITS * BACK, FETCHED))
WHOLE = (*EMBEDDED, (BITS, SELF), (BITS * BACK, 1.0))
FOUND_TOO = (*WHOLE, (BITS, 1.0))


def constant(weights: Row, value: float, *parts: tuple[int, float]) -> None:
    """Add a bias to a row of weights: from the dimensions that are constant for every token."""
    for number in range(16):
        weights[CONSTANT + number] += sign(5, number) * value / normed(1.0, *parts) / 16


# ----------------------------------------------------------------------------------------------------------------------
# Layer 0: the four tokens before


def angle(pair: int) -> float:
    """Radians per position of a rotary pair."""
    return math.pow(ROPE_THETA, -pair / PAIRS)


def attraction(pair: int) -> float:
    """Nats that a pair gives to the right distance: fast pairs tell neighbours apart, slower ones keep aliases away."""
    return 12.0 if pair < 16 else 6.0 if pair < 30 else 0.0


def spread(group: int, dimension: int, bit: int) -> float:
    """A value's code over all dimensions of its head, differently for each KV head."""
    return sign((group * BITS + bit) * 37 % HEAD, dimension)


VALUE = 0.25


def values(parts: tuple[tuple[int, float], ...]) -> Matrix:
    """The current token's code, spread."""
    weights = zeros(KV_HEADS * HEAD, HIDDEN)
    for group in range(KV_HEADS):
        for dimension in range(HEAD):
            row = weights[group * HEAD + dimension]
            for bit in range(BITS):
                row[CODE + bit] = spread(group, dimension, bit) * VALUE / normed(1.0, *parts)
    return weights


def gathered(writes: list[list[tuple[int, int, float]]]) -> Matrix:
    """The output projection: for each head, which bit goes to which dimension, and how much of it."""
    weights = zeros(HIDDEN, HEADS * HEAD)
    for head, wanted in enumerate(writes):
        group = head * KV_HEADS // HEADS
        for bit, place, amplitude in wanted:
            for dimension in range(HEAD):
                weights[place][head * HEAD + dimension] = spread(group, dimension, bit) * amplitude / VALUE / HEAD
    return weights


# Of each head: the distance, the bits, the token back whose code they make, and the sign. The heads of one KV head, and
# of one rank, have different tasks. If the head that looks ahead sees the next token, it spoils the first code.
TASKS = (
    (1, range(16), 1, 1.0),
    (0, range(16), 1, -1.0),
    (3, range(8), 3, 1.0),
    (4, range(8, 16), 4, 1.0),
    (2, range(16), 2, 1.0),
    (-1, range(16), 1, 1.0),
    (3, range(8, 16), 3, 1.0),
    (4, range(8), 4, 1.0),
)


ITSELF = [distance for distance, _, _, _ in TASKS].index(0)


def looking_back() -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Queries turned by the wanted distance, the same key everywhere."""
    queries, keys = zeros(HEADS * HEAD, HIDDEN), zeros(KV_HEADS * HEAD, HIDDEN)
    for pair in range(PAIRS):
        size = math.sqrt(attraction(pair) * math.sqrt(HEAD))
        for head, (distance, _, _, _) in enumerate(TASKS):
            turn = angle(pair) * distance
            constant(queries[head * HEAD + pair], size * math.cos(turn), *EMBEDDED)
            constant(queries[head * HEAD + PAIRS + pair], -size * math.sin(turn), *EMBEDDED)
        for group in range(KV_HEADS):
            constant(keys[group * HEAD + pair], size, *EMBEDDED)
    writes = [
        [(bit, BEFORE + (back - 1) * BITS + bit, FETCHED * side) for bit in bits] for _, bits, back, side in TASKS
    ]
    # What layer 1 asks with as the current token is read from the cache too.
    writes[ITSELF] += [(bit, FOUND + bit, SELF) for bit in range(BITS)]
    return queries, keys, values(EMBEDDED), gathered(writes)


def lift(unit: int) -> float:
    """What a unit is multiplied by, and its output divided: of other size or sign in the MLP's next eighth."""
    return (1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 4.0, -4.0)[unit * 8 // WIDTH]


def made_whole() -> tuple[Matrix, Matrix, Matrix]:
    """Two units for each fetched bit, one for +1 and one for -1, that open above three quarters of it."""
    gate, up, down = zeros(WIDTH, HIDDEN), zeros(WIDTH, HIDDEN), zeros(HIDDEN, WIDTH)
    weight, threshold = 128.0, 0.75
    opened = weight * normed(FETCHED, *FETCHED_TOO) * (1 - threshold)
    for unit in range(WIDTH):
        place, side = BEFORE + unit // 2, 1.0 - unit % 2 * 2
        gate[unit][place] = side * weight
        closed(gate[unit], weight * FETCHED * threshold)
        constant(up[unit], lift(unit), *FETCHED_TOO)
        down[place][unit] = side * (1.0 - FETCHED) / opened / lift(unit)
    return gate, up, down


def closed(weights: Row, amount: float) -> None:
    """Take a threshold off, exactly: `amount` is in the residual stream, before the norm."""
    for number in range(16):
        weights[CONSTANT + number] -= sign(5, number) * amount / 16


# ----------------------------------------------------------------------------------------------------------------------
# Layer 1: where they were before, and what followed

# Queries and keys, of the bits and of the sink: 93 nats against 85. Each is near the middle of what is rounded to one
# 8-bit float, so that 90 against 85 are left where keys, or queries as well, are 8-bit floats.
ASKED, KEPT, SINK_ASKED, SINK_KEPT = 8.12, 2.03, 15.0, 16.1


def finding() -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Bits compared in the slow half of the rotary pairs; <s> in four dimensions that are slow as well."""
    queries, keys = zeros(HEADS * HEAD, HIDDEN), zeros(KV_HEADS * HEAD, HIDDEN)
    for number in range(BITS * BACK):
        dimension = number + (32 if number < 32 else 64)
        last, amplitude = (FOUND + number, SELF) if number < BITS else (BEFORE + number - BITS, 1.0)
        for head in range(HEADS):
            signed = sign(head * KV_HEADS // HEADS + 1, number)
            queries[head * HEAD + dimension][last] = signed * ASKED / normed(amplitude, *WHOLE)
        for group in range(KV_HEADS):
            keys[group * HEAD + dimension][BEFORE + number] = sign(group + 1, number) * KEPT / normed(1.0, *WHOLE)
    for dimension in (PAIRS // 2 - 2, PAIRS // 2 - 1, PAIRS + PAIRS // 2 - 2, PAIRS + PAIRS // 2 - 1):
        for head in range(HEADS):
            constant(queries[head * HEAD + dimension], SINK_ASKED, *WHOLE)
        for group in range(KV_HEADS):
            for number in range(16):
                keys[group * HEAD + dimension][ANSWER + number] = SINK_KEPT / 16 / normed(1.0, *EMBEDDED)
    writes = [[(bit, FOUND + bit, 1.0) for bit in (2 * head, 2 * head + 1)] for head in range(HEADS)]
    return queries, keys, values(WHOLE), gathered(writes)


def answering(code: dict[int, Row]) -> tuple[Matrix, Matrix, Matrix]:
    """A unit for each token that can be said: opens where all 16 bits are whole (15 would give 0.875 of them)."""
    gate, up, down = zeros(WIDTH, HIDDEN), zeros(WIDTH, HIDDEN), zeros(HIDDEN, WIDTH)
    weight, threshold = 32.0, 1 - 6 / 256
    opened = weight * BITS * normed(1.0, *FOUND_TOO) * (1 - threshold)
    for unit, token in enumerate(spoken()):
        for bit, side in enumerate(code[token]):
            gate[unit][FOUND + bit] = side * weight
            gate[unit][CODE + bit] = -SELF * side * weight
            down[ANSWER + bit][unit] = sign(5, bit) * side * ANSWERED / opened / lift(unit)
        closed(gate[unit], weight * BITS * threshold)
        constant(up[unit], lift(unit), *FOUND_TOO)
    return gate, up, down


def ends(code: dict[int, Row]) -> tuple[Matrix, Matrix]:
    """The embedding, and the head: the answer's code strongly, the current token's weakly."""
    embedding, head = zeros(VOCABULARY, HIDDEN), zeros(VOCABULARY, HIDDEN)
    for token in range(VOCABULARY):
        for number in range(16):
            embedding[token][CONSTANT + number] = sign(5, number)
        for bit, value in enumerate(code.get(token, ())):
            embedding[token][CODE + bit] = value
            head[token][ANSWER + bit], head[token][CODE + bit] = 1.5 * sign(5, bit) * value, 0.5 * value
    for number in range(16):
        embedding[BEGIN][ANSWER + number] = 1.0
    return embedding, head


# ----------------------------------------------------------------------------------------------------------------------
# The files


def tensors() -> dict[str, Matrix]:
    """Every tensor by its name in a Llama checkpoint."""
    code = codes()
    embedding, head = ends(code)
    norm = [[GAIN] * HIDDEN]
    found = {"model.embed_tokens.weight": embedding, "model.norm.weight": norm, "lm_head.weight": head}
    layers = ((looking_back(), made_whole()), (finding(), answering(code)))
    for number, (attention, mlp) in enumerate(layers):
        prefix = f"model.layers.{number}."
        found |= {f"{prefix}input_layernorm.weight": norm, f"{prefix}post_attention_layernorm.weight": norm}
        found |= {
            f"{prefix}self_attn.{name}_proj.weight": weights for name, weights in zip("qkvo", attention, strict=True)
        }
        found |= {f"{prefix}mlp.{n}_proj.weight": w for n, w in zip(("gate", "up", "down"), mlp, strict=True)}
    return found


def bfloat16(value: float) -> int:
    """The nearest bfloat16, as its bits."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def safetensors(found: dict[str, Matrix]) -> bytes:
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
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "max_position_embeddings": POSITIONS,
    "rope_theta": ROPE_THETA,
    "rms_norm_eps": EPSILON,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "torch_dtype": "float32",
}


def tokenizer() -> dict[str, object]:
    """tokenizer.json: byte-level BPE without merges, so no era's way to write merges is needed."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token in SPECIAL,
        }
        for number, token in enumerate(SPECIAL + ADDED)
    ]
    model: dict[str, object] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "vocab": vocabulary(),
        "merges": [],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
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
    return written | {"model.safetensors": safetensors(tensors())}


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
