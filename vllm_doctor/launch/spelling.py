"""How far one name is from another, and which known name is nearest."""

from collections.abc import Iterable
from functools import lru_cache

# A name that is further off than this is another name, not a misspelling.
MAXIMUM_DISTANCE = 3


# The checks run again for every fix that is to be proved, over the same names.
@lru_cache(maxsize=32_768)
def distance(one: str, other: str, maximum: int = MAXIMUM_DISTANCE) -> int:
    """The edits (insert, drop, replace, swap neighbours) between two words; `maximum` + 1 where there are more."""
    if abs(len(one) - len(other)) > maximum or _different_letters(one, other) > 2 * maximum:
        return maximum + 1
    before: list[int] = []
    previous = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        current = [row]
        for column, match in enumerate(other, 1):
            cost = 0 if letter == match else 1
            best = min(previous[column] + 1, current[column - 1] + 1, previous[column - 1] + cost)
            if cost and row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == match:
                best = min(best, before[column - 2] + 1)
            current.append(best)
        if min(current) > maximum:
            return maximum + 1
        before, previous = previous, current
    return min(previous[-1], maximum + 1)


def _different_letters(one: str, other: str) -> int:
    """How many kinds of letters only one of the words has: an edit changes that by two at most."""
    return len(set(one) ^ set(other))


def nearest(word: str, names: Iterable[str], maximum: int | None = None) -> str | None:
    """The name that is nearest to the word, if it is near enough to be meant and no other is as near.

    `maximum` is the largest distance taken; by default a quarter of the word's length, at most 3.
    """
    limit = min(MAXIMUM_DISTANCE, max(1, len(word.lstrip("-")) // 4)) if maximum is None else maximum
    found: list[str] = []
    best = limit
    for name in names:
        far = distance(word, name, best)
        if far < best or (far == best and not found):
            best, found = far, [name]
        elif far == best:
            found.append(name)
    return found[0] if len(found) == 1 else None
