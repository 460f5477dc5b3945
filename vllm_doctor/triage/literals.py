"""The literals of which every match of an expression contains one: what the prefilter looks for."""

from collections.abc import Iterator

# In bytes: two characters of Chinese are as rare as six letters.
MINIMUM_LENGTH = 4

# What may differ between the source and a text that quotes it (escaped, typographic): no part of a literal.
_QUOTES = frozenset("\"'`\\")
_META = frozenset(".^$|?*+()[]{}")
_QUANTIFIERS = frozenset("?*+{")


def literals(pattern: str) -> frozenset[str]:
    """Literals in lower case, of four bytes or more; empty where some match may contain none.

    Either the longest run of plain characters, or, where that is better, one run of each alternative of a group.
    """
    options = list(_options(pattern, 0, len(pattern)))
    best = max(options, key=_shortest, default=frozenset[str]())
    return best if best and _shortest(best) >= MINIMUM_LENGTH else frozenset()


def required(pattern: str) -> tuple[frozenset[str], ...]:
    """Sets of runs in lower case: every match of the expression contains one of each set."""
    return tuple(dict.fromkeys(_options(pattern, 0, len(pattern))))


def _options(pattern: str, start: int, end: int) -> Iterator[frozenset[str]]:
    """Sets of runs between two places outside groups: any one of these sets will do."""
    branches = _branches(pattern, start, end)
    if len(branches) > 1:
        chosen = [max(_options(pattern, *b), key=_shortest, default=None) for b in branches]
        if all(chosen):
            yield frozenset(run for found in chosen if found for run in found)
        return
    run: list[str] = []
    place = start
    while place < end:
        step, literal = _token(pattern, place)
        after = place + step
        optional = after < end and pattern[after] in _QUANTIFIERS
        if literal is not None and not optional and literal not in _QUOTES and _is_of_one_case(literal):
            run.append(literal)
        else:
            yield from _whole(run)
            run = []
            if pattern[place] == "(" and not (optional and pattern[after] != "+"):
                yield from _options(pattern, _inside(pattern, place), after - 1)
        place = after
    yield from _whole(run)


def _shortest(runs: frozenset[str]) -> int:
    """The length of the shortest run in bytes."""
    return min(len(run.encode()) for run in runs)


def _is_of_one_case(character: str) -> bool:
    """Whether lower case of bytes finds it in any case: ASCII, and the letters of scripts without upper case."""
    return character.isascii() or (character.isalpha() and character.lower() == character.upper())


def _whole(run: list[str]) -> Iterator[frozenset[str]]:
    if word := "".join(run).strip().lower():
        yield frozenset({word})


def _branches(pattern: str, start: int, end: int) -> list[tuple[int, int]]:
    bars = [place for place in _places(pattern, start, end) if pattern[place] == "|"]
    return list(zip([start, *(bar + 1 for bar in bars)], [*bars, end], strict=True))


def _places(pattern: str, start: int, end: int) -> Iterator[int]:
    """The beginnings of the tokens between two places; a group is one token."""
    while start < end:
        yield start
        start += _token(pattern, start)[0]


def _inside(pattern: str, place: int) -> int:
    """Where the inside of a group begins, behind `(?:`, `(?P<name>` or flags."""
    if not pattern.startswith("(?", place):
        return place + 1
    return min(x for x in (pattern.find(":", place), pattern.find(">", place)) if x > 0) + 1


def _token(pattern: str, place: int) -> tuple[int, str | None]:
    """The length of the token at that place, and the character it stands for where it stands for one."""
    character = pattern[place]
    match character:
        case "\\":
            escaped = pattern[place + 1 : place + 2]
            return 2, None if escaped.isalnum() or not escaped else escaped
        case "[":
            return _set_length(pattern, place), None
        case "{":
            return pattern.index("}", place) - place + 1, None
        case "(":
            return _group_length(pattern, place), None
        case _:
            return 1, None if character in _META else character


def _group_length(pattern: str, place: int) -> int:
    end = place + 1
    while pattern[end] != ")":
        end += _token(pattern, end)[0]
    return end - place + 1


def _set_length(pattern: str, place: int) -> int:
    end = place + 1
    if pattern[end : end + 1] == "^":
        end += 1
    if pattern[end : end + 1] == "]":
        end += 1
    while pattern[end] != "]":
        end += 2 if pattern[end] == "\\" else 1
    return end - place + 1
