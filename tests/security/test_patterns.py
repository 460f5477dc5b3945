"""Every compiled pattern takes time in proportion to its text: measured as a ratio, on text made to make it go back."""

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator

import pytest

import vllm_doctor
import vllm_doctor_checks
from vllm_doctor import redact

# Parts that patterns repeat, each ended by something that fits nothing.
PARTS = (
    *("a", "1", " ", "-", "_", ".", "a-", "a.", "1.", "a=", "key=", "a:", "://", "a:a@", '"', "'", "\\", '\\"', "`"),
    *("[", "\x1b[", "\x1b]", "--a ", "eyJaaaaaaaa.", "secret", "_secret", "token='", "\n", "$", "a/", "v0.1", "$x"),
)
TAIL = "\x00\u2028!"

SMALL, FACTOR = 4_000, 8

# Linear is a factor of 8, quadratic one of 64.
MAXIMUM_RATIO = 28.0
# What is over in less cannot be measured, and hurts nobody.
UNIMPORTANT_SECONDS = 0.02


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    for package in (vllm_doctor, vllm_doctor_checks):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__") or ".inspector" in module.name:
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                    yield f"{module.name}.{name}", value


PATTERNS = dict(patterns())


def seconds(pattern: re.Pattern[str], text: str) -> float:
    """The least time of a match at the start of the text: most patterns are asked for no other place."""
    times = []
    for _ in range(3):
        started = time.process_time()
        pattern.match(text)
        times.append(time.process_time() - started)
    return min(times)


def test_the_patterns_are_found() -> None:
    assert len(PATTERNS) > 25


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_linear(name: str) -> None:
    for part in PARTS:
        repeats = SMALL // len(part)
        large = seconds(PATTERNS[name], part * (repeats * FACTOR) + TAIL)
        if large < UNIMPORTANT_SECONDS:
            continue  # a linear match at one place takes well under a millisecond
        small = seconds(PATTERNS[name], part * repeats + TAIL)
        assert large / max(small, 1e-4) < MAXIMUM_RATIO, (part, small, large)


@pytest.mark.parametrize("part", PARTS)
def test_masking_is_linear(part: str) -> None:
    def cost(repeats: int) -> float:
        text = part * repeats + "token" + TAIL
        times = []
        for _ in range(3):
            started = time.process_time()
            redact.text(text)
            times.append(time.process_time() - started)
        return min(times)

    small = cost(20_000 // len(part))
    large = cost(160_000 // len(part))
    assert large < UNIMPORTANT_SECONDS or large / max(small, 1e-4) < MAXIMUM_RATIO
