"""The expressions of the signatures: compiled by RE2 when they are needed first, found by their literals."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import re2

from vllm_doctor.triage.literals import literals, required
from vllm_doctor.triage.prefilter import Prefilter
from vllm_doctor.triage.signature import Signature, book

# One expression's automaton in RE2: hardly any needs more than a tenth of it.
EXPRESSION_BYTES = 2 * 2**20


@cache
def compiled(expression: str) -> Any:
    """The expression for bytes, in any letter case; `.` stops at a line's end, and no complaints are printed."""
    options = re2.Options()
    options.max_mem = EXPRESSION_BYTES
    options.case_sensitive = False
    options.log_errors = False
    return re2.compile(expression.encode(), options)


def groups(found: Any) -> dict[str, str]:
    """The named groups that took part in a match."""
    return {n.decode(): v.decode("utf-8", "replace") for n, v in found.groupdict().items() if v is not None}


class Pattern:
    """One expression of a signature, compiled when it is needed first."""

    def __init__(self, signature: Signature, expression: str) -> None:
        self.signature = signature
        self.literals = literals(expression)
        if not self.literals:
            raise ValueError(f"{signature.id}: no literal in {expression!r}")
        # What stands in every match besides the literals that the prefilter looks for: one each, or one of several.
        others = [sorted(run.encode() for run in runs) for runs in required(expression) if runs != self.literals]
        self._runs = tuple(runs[0] for runs in others if len(runs) == 1)
        self._choices = tuple(tuple(runs) for runs in others if len(runs) > 1)
        self._expression = expression
        self._compiled: Any = None
        self._unless: Any = None

    def may_match(self, lower: bytes) -> bool:
        """Whether the text, in lower case, holds what a match needs besides a literal: far cheaper than a search."""
        for run in self._runs:
            if run not in lower:
                return False
        for runs in self._choices:
            for run in runs:
                if run in lower:
                    break
            else:
                return False
        return True

    def captures(self, text: bytes) -> dict[str, str] | None:
        """The named groups where the text matches, else None."""
        if self._compiled is None:
            self._compiled = compiled(self._expression)
            if self.signature.unless:
                self._unless = compiled(self.signature.unless)
        found = self._compiled.search(text)
        if found is None or (self._unless is not None and self._unless.search(text)):
            return None
        return groups(found)


class Patterns:
    """All expressions by their literals."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        everything = [Pattern(s, expression) for s in signatures for expression in s.patterns]
        by_literal: dict[bytes, list[Pattern]] = {}
        for pattern in everything:
            for literal in pattern.literals:
                by_literal.setdefault(literal.encode(), []).append(pattern)
        self.prefilter = Prefilter(by_literal)
        self.with_literal = [tuple(by_literal[literal]) for literal in self.prefilter.literals]
        self._order = [(-len(literal), number) for number, literal in enumerate(self.prefilter.literals)]

    def of(self, numbers: Iterable[int]) -> list[Pattern]:
        """The expressions that these literals may lead to; those of the longest first, which say the most."""
        found: dict[int, Pattern] = {}
        for number in sorted(numbers, key=self._order.__getitem__):
            for pattern in self.with_literal[number]:
                found[id(pattern)] = pattern
        return list(found.values())


@cache
def patterns() -> Patterns:
    """The expressions of the whole book."""
    return Patterns(book().values())
