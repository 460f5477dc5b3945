"""Texts made to make a reader of logs slow: seeded generators by name, each for any number of different texts."""

import json
import random
from collections.abc import Callable, Iterator

from vllm_doctor.triage.patterns import patterns
from vllm_doctor.triage.signature import book

LINES = tuple(line for s in book().values() for line in s.match)
NEAR_MISSES = tuple(line for s in book().values() for line in s.miss)
LITERALS = tuple(literal.decode() for literal in patterns().prefilter.literals)

PREFIXES = (
    "(EngineCore_DP0 pid=68) ",
    "ERROR 01-20 13:03:50 [core.py:12] ",
    "2025-06-30T13:53:19.123456789Z ",
    "[rank0]: ",
    "Jun 30 13:53:19 node7 vllm[123]: ",
    "vllm-1  | ",
    "stderr F ",
    "WARNING 08-05 12:39:06 serving_chat.py:118] ",
)
LAUNCHES = ("$ vllm serve org/name --port {0}", "docker run -p {0}:{0} image --model x \\", "PyTorch version: 2.{0}")

Chance = random.Random
Generator = Callable[[Chance], Iterator[str]]


def _only_literals(chance: Chance) -> Iterator[str]:
    between = chance.choice(["\n", " ", "", ", "])
    while True:
        yield chance.choice(LITERALS) + between


def _one_literal(chance: Chance) -> Iterator[str]:
    literal = chance.choice(LITERALS) + chance.choice(["", " ", "\n", "x\n"])
    while True:
        yield literal


def _long_literal_lines(chance: Chance) -> Iterator[str]:
    length = chance.choice([500, 4000, 20_000, 200_000])
    while True:
        yield " ".join(chance.choices(LITERALS, k=length // 15)) + "\n"


def _beginnings(chance: Chance) -> Iterator[str]:
    """All of a literal but its end: the automaton goes deep and falls back."""
    few = chance.sample(LITERALS, chance.choice([1, 3, 30, len(LITERALS)]))
    while True:
        literal = chance.choice(few)
        yield literal[: chance.randrange(len(literal) // 2, len(literal))]


def _upper_and_lower(chance: Chance) -> Iterator[str]:
    while True:
        yield "".join(chance.choice((c, c.upper())) for c in chance.choice(LITERALS)) + chance.choice("\n ")


def _repeated_line(chance: Chance) -> Iterator[str]:
    line = chance.choice(LINES) + "\n"
    while True:
        yield line


def _numbered(lines: tuple[str, ...]) -> Generator:
    def generate(chance: Chance) -> Iterator[str]:
        line = chance.choice(lines)
        for number in range(10**9):
            yield f"{chance.choice(PREFIXES)}{line} {number}\n"

    return generate


def _lines(lines: tuple[str, ...]) -> Generator:
    def generate(chance: Chance) -> Iterator[str]:
        while True:
            yield f"{chance.choice(lines)} {chance.random()}\n"

    return generate


def _complaints(chance: Chance) -> Iterator[str]:
    word = chance.choice(["error", "failed", "ValueError:", "not found", "exit", "killed", "exception"])
    for number in range(10**9):
        yield f"{word} {number}\n"


def _spliced(chance: Chance) -> Iterator[str]:
    while True:
        line = chance.choice(LINES)
        cut = chance.randrange(len(line) + 1)
        yield line[:cut] + chance.randbytes(chance.randrange(20)).decode("latin-1") + line[cut:] + chance.choice("\n ")


def _stuttered(chance: Chance) -> Iterator[str]:
    while True:
        yield chance.choice(LINES) * chance.randrange(1, 30) + "\n"


def _behind_noise(chance: Chance) -> Iterator[str]:
    while True:
        noise = chance.randbytes(chance.randrange(200)).decode("latin-1")
        yield noise + chance.choice(LINES) + chance.choice("\n ")


def _nested_prefixes(chance: Chance) -> Iterator[str]:
    while True:
        yield "".join(chance.choices(PREFIXES, k=chance.randrange(1, 40))) + chance.choice(LINES) + "\n"


def _ansi(chance: Chance) -> Iterator[str]:
    while True:
        words = chance.choice(LINES).split(" ")
        yield "".join(f"\x1b[{chance.randrange(99)}m{word} " for word in words) + "\n"


def _without_line_ends(chance: Chance) -> Iterator[str]:
    between = chance.choice(["", " ", "\0", "\t", "\r", "\\n"])
    while True:
        yield chance.choice(LINES) + between


def _other_line_ends(chance: Chance) -> Iterator[str]:
    end = chance.choice(["\r\n", "\r", "\n\n\n", "\0\n", "\x0b", "\u2028"])
    while True:
        yield chance.choice(LINES) + end


def _nul_bytes(chance: Chance) -> Iterator[str]:
    while True:
        yield "\0".join(chance.choice(LINES)) if chance.random() < 0.3 else "\0" * 50 + chance.choice(LINES) + "\n"


def _json_strings(chance: Chance) -> Iterator[str]:
    depth, together = chance.randrange(1, 5), chance.randrange(1, 40)
    while True:
        text = "\n".join(chance.choices(LINES, k=together))
        for _ in range(depth):
            text = json.dumps(text)
        yield text + chance.choice(["\n", " ", ","])


def _entities(chance: Chance) -> Iterator[str]:
    while True:
        line = chance.choice(LINES)
        yield line.replace("'", "&#39;").replace('"', "\u201c").replace(" ", "&amp; ", 1) + "\n"


def _tracebacks(chance: Chance) -> Iterator[str]:
    while True:
        yield "Traceback (most recent call last):\n"
        for number in range(chance.randrange(30)):
            name = chance.choice(["load_model", "f"])
            yield f'  File "/opt/vllm/v1/engine/core.py", line {number}, in {name}\n    x()\n'
        yield chance.choice((*LINES, *NEAR_MISSES)) + "\n"


def _launches(chance: Chance) -> Iterator[str]:
    while True:
        yield chance.choice(LAUNCHES).format(chance.randrange(10**6)) + "\n"


def _one_byte(chance: Chance) -> Iterator[str]:
    part = chance.choice(["x", "\n", "\0", "\\", '\\\\\\"', "([{", "\x1b[31m", " ", "&", "\x1b", "a ", "\xff", "'"])
    while True:
        yield part


def _random_bytes(chance: Chance) -> Iterator[str]:
    while True:
        yield chance.randbytes(4096).decode("latin-1")


def _mixture(chance: Chance) -> Iterator[str]:
    """Some of each of the others in turn."""
    others = [generate(chance) for name, generate in GENERATORS.items() if name != "a mixture of all"]
    while True:
        chosen = chance.choice(others)
        for _ in range(chance.randrange(60)):
            yield next(chosen)


GENERATORS: dict[str, Generator] = {
    "only literals": _only_literals,
    "one literal": _one_literal,
    "long lines of literals": _long_literal_lines,
    "beginnings of literals": _beginnings,
    "literals in any letter case": _upper_and_lower,
    "one line repeated": _repeated_line,
    "one line numbered": _numbered(LINES),
    "one near miss numbered": _numbered(NEAR_MISSES),
    "all lines": _lines(LINES),
    "all near misses": _lines(NEAR_MISSES),
    "complaints": _complaints,
    "spliced lines": _spliced,
    "stuttered lines": _stuttered,
    "lines behind noise": _behind_noise,
    "nested prefixes": _nested_prefixes,
    "escapes": _ansi,
    "no line ends": _without_line_ends,
    "other line ends": _other_line_ends,
    "nul bytes": _nul_bytes,
    "strings in JSON": _json_strings,
    "entities and quotes": _entities,
    "tracebacks": _tracebacks,
    "launches and reports": _launches,
    "one part": _one_byte,
    "random bytes": _random_bytes,
    "a mixture of all": _mixture,
}


def text(name: str, number: int, size: int) -> bytes:
    """So many bytes of that class; the same number gives the same text."""
    chance = random.Random(f"{name} {number}")
    parts: list[str] = []
    total = 0
    for part in GENERATORS[name](chance):
        parts.append(part)
        total += len(part)
        if total >= size or not part:
            break
    return "".join(parts).encode("utf-8", "replace")[:size]


def texts(count: int, size: int) -> Iterator[tuple[str, int, bytes]]:
    """So many texts, of every class alike, with their names and numbers."""
    names = list(GENERATORS)
    for index in range(count):
        name, number = names[index % len(names)], index // len(names)
        yield name, number, text(name, number, size)
