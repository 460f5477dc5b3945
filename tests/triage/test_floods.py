"""Causes among very many lines that look like them: found at the beginning, found at the end, and at a bounded cost."""

import io
import random
from collections.abc import Iterator
from itertools import islice

import pytest

from benchmarks.hostile_texts import GENERATORS, NEAR_MISSES, text
from vllm_doctor.triage import explain_stream
from vllm_doctor.triage.effort import FREE, OVERDRAFT, PER_BYTE
from vllm_doctor.triage.matcher import BYTES_PER_END_COST, END_COST, Matcher
from vllm_doctor.triage.patterns import Patterns, patterns
from vllm_doctor.triage.signature import Role, book

FAULT = b"ValueError: Total number of attention heads (12) must be divisible by tensor parallel size (8).\n"

FLOOD_BYTES = 6 * 2**20

# One look more than may be spent is begun at times: at 64 expressions, on the longest line and those joined to it.
ONE_LOOK = 900_000


def matched(line: str) -> bool:
    matcher = Matcher()
    matcher.feed(f"ERROR 01-20 13:03:50 [core.py:12] {line} 7\n".encode())
    matcher.finish()
    return bool(matcher.matches)


def harmless() -> Iterator[str]:
    """Lines that signatures know, and that name no cause."""
    for signature in book().values():
        if signature.role in (Role.MARKER, Role.FACT) and signature.stage not in ("stop", "start"):
            yield from signature.match


FLOODS = {
    "near misses": [line for line in NEAR_MISSES if not matched(line)],
    "near misses of the same cause": ["the attention heads must be divisible, and the tensor parallel size (8)."],
    "harmless lines": list(harmless()),
    "complaints": ["request failed with an error", "killed, denied, refused", "Exception: no such thing"],
}


def flood(name: str, size: int = FLOOD_BYTES) -> bytes:
    chance = random.Random(name)
    parts: list[str] = []
    total = 0
    for number in range(10**9):
        parts.append(f"ERROR 01-20 13:03:50 [core.py:12] {chance.choice(FLOODS[name])} {number}\n")
        total += len(parts[-1])
        if total > size:
            break
    return "".join(parts).encode()


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("place", ["first", "last", "before the last lines"])
def test_the_cause_is_found(name: str, place: str) -> None:
    lines = flood(name)
    behind = b"".join(line + b"\n" for line in islice(reversed(lines[-20_000:].split(b"\n")[1:-1]), 20))
    log = {"first": FAULT + lines, "last": lines + FAULT, "before the last lines": lines + FAULT + behind}[place]
    number = log[: log.index(FAULT)].count(b"\n") + 1
    found = explain_stream(io.BytesIO(log)).findings
    # Lines that are harmless alone may say something together: what else is named is not the question here.
    assert ("tp-divisibility", [number]) in [(f.finding.cause, [line.number for line in f.lines]) for f in found]


def spent(matcher: Matcher, size: int) -> float:
    return FREE + size * PER_BYTE - matcher._effort.balance


@pytest.mark.parametrize("name", GENERATORS)
def test_no_text_costs_more_than_its_bytes_pay_for(name: str) -> None:
    size = 512 * 2**10
    for number in range(3):
        matcher = Matcher()
        matcher.feed(text(name, number, size))
        matcher.finish()
        allowed = FREE + size * PER_BYTE + OVERDRAFT + END_COST + size / BYTES_PER_END_COST + 2 * ONE_LOOK
        assert spent(matcher, size) <= allowed


def test_places_are_those_of_the_literals() -> None:
    prefilter = Patterns(list(book().values())[:40]).prefilter
    line = b"".join(prefilter.literals)
    assert prefilter.all_in(line) == set(range(len(prefilter.literals)))
    scanner = prefilter.without({0, 3})
    assert {scanner.numbers[n] for n, _, _ in scanner.places(line)}.isdisjoint({0, 3})
    assert all(line[a:b] == prefilter.literals[scanner.numbers[n]] for n, a, b in scanner.places(line))


def test_a_scanner_without_literals_finds_nothing() -> None:
    prefilter = patterns().prefilter
    assert prefilter.without(range(len(prefilter.literals))).places(FAULT * 10) == []


@pytest.mark.parametrize("padding", [0, 5_000, 70_000, 1_500_000])
def test_a_cause_is_found_anywhere_in_a_line_without_end(padding: int) -> None:
    found = explain_stream(io.BytesIO(b"x " * (padding // 2) + FAULT.strip() + b" y" * (padding // 2))).findings
    assert [f.finding.cause for f in found] == ["tp-divisibility"]


def test_a_long_line_of_information_is_no_fault() -> None:
    prompt = b"INFO 01-20 13:03:50 [logger.py:39] Received request: prompt: '" + b"word " * 500 + FAULT
    assert explain_stream(io.BytesIO(prompt)).findings == ()
