"""The canary's weights: what each row of each matrix is for (make_canary.py tells the whole)."""

import math

from canary_parts.tokens import BEGIN, BITS, VOCABULARY, codes, spoken

# Head size 128 is the one that every attention backend of vLLM 0.4 to 0.32 takes; 8 heads and the widths divide by
# tensor parallel 1, 2, 4 and 8 (the 4 KV heads are copied for 8, as vLLM does for real models).
HIDDEN, HEADS, KV_HEADS, HEAD, WIDTH = 128, 8, 4, 128, 128
PAIRS = HEAD // 2
ROPE_THETA = 1e8

# The residual stream: where what stands.
CODE, CONSTANT, BEFORE, FOUND, ANSWER = 0, 16, 32, 96, 112
BACK = 4

# Amplitudes in the residual stream; all norms have the weight GAIN.
GAIN = 0.5
FETCHED, SELF, ANSWERED = 0.25, 1 / 16, 8.0

Row = list[float]
Matrix = list[Row]


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
