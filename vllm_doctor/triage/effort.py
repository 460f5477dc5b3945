"""What a matcher may spend: the time per byte stays bounded, and no literal uses up what the others need.

Everything is counted in bytes of a plain log: what takes as long as reading 5,000 bytes costs 5,000. Every byte that is
read pays for a part of one more, so that no text takes more than a fixed multiple of the time of a plain one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from operator import itemgetter

from vllm_doctor.triage.prefilter import Place

# What may be spent on any text, and what every byte adds.
FREE = 2_000_000
PER_BYTE = 0.4

# Below this, literals rest sooner; below nothing, only those never looked at count, until so much is owed.
RESERVE = 200_000
OVERDRAFT = 300_000

# Looks without a match after which a literal rests, where much may be spent and where little, and for how many bytes:
# twice as many after every further one.
PATIENCE = 64
LESS_PATIENCE = 16
FIRST_REST_BYTES = 4096
MAXIMUM_DOUBLINGS = 10

# Places of literals that lead to no look: so many cost as much as a new automaton without the most frequent of them.
IDLE_PLACES = 20_000

# The least share of the idle places that is worth a new automaton, and of one literal to be left out.
WORTHWHILE = 0.5
FREQUENT = 0.02

# Where none is, so many times nothing is counted: counting costs time too.
UNCOUNTED = 48

NEVER = 2**62


class Mode(IntEnum):
    """How much may be spent now."""

    FREELY = 0
    SPARINGLY = 1
    ON_THE_NEW = 2
    NOTHING = 3


class Effort:
    """The account of one text, and what is known of each literal's use."""

    def __init__(self, literals: int) -> None:
        # What may still be spent; below nothing, what is owed.
        self.balance = float(FREE)
        self._looks = [0] * literals
        self._idle_looks = [0] * literals
        # From which byte of the text on a literal is looked at again.
        self._awake = [0] * literals
        # The places that led to no look, by their numbers in the scanner that is in use.
        self._idle_places: Counter[int] = Counter()
        self._scanned: Sequence[int] = ()
        self._uncounted = 0

    @property
    def mode(self) -> Mode:
        """By what is left."""
        if self.balance > RESERVE:
            return Mode.FREELY
        if self.balance > 0:
            return Mode.SPARINGLY
        return Mode.ON_THE_NEW if self.balance > -OVERDRAFT else Mode.NOTHING

    def earn(self, size: int) -> None:
        """So many bytes were read."""
        self.balance += size * PER_BYTE

    def spend(self, cost: float) -> None:
        """Something was done that takes as long as reading so many bytes."""
        self.balance -= cost

    def worthwhile(self, places: list[Place], numbers: Sequence[int], byte: int) -> list[Place]:
        """The places to look at, with the literals' own numbers."""
        match self.mode:
            case Mode.FREELY | Mode.SPARINGLY:
                awake = self._awake
                return [(literal, start, end) for n, start, end in places if awake[literal := numbers[n]] <= byte]
            case Mode.ON_THE_NEW:
                looks = self._looks
                return [(literal, start, end) for n, start, end in places if not looks[literal := numbers[n]]]
            case _:
                return []

    def is_worthwhile(self, literal: int, byte: int, mode: Mode) -> bool:
        """Whether that one is still to be looked at."""
        return self._awake[literal] <= byte if mode <= Mode.SPARINGLY else not self._looks[literal]

    def note(self, literals: Iterable[int], byte: int, *, useful: bool) -> None:
        """These literals were looked at there; those that lead nowhere come to rest."""
        patience = PATIENCE if self.mode is Mode.FREELY else LESS_PATIENCE
        for literal in literals:
            self._looks[literal] += 1
            if useful:
                self._idle_looks[literal] = 0
                continue
            self._idle_looks[literal] = idle = self._idle_looks[literal] + 1
            if idle > patience and self._awake[literal] < NEVER:
                self._awake[literal] = byte + (FIRST_REST_BYTES << min(idle - patience, MAXIMUM_DOUBLINGS))

    def retire(self, literal: int) -> None:
        """The literal has said all it can."""
        self._awake[literal] = NEVER

    @property
    def retired(self) -> frozenset[int]:
        """The literals that are never looked at again."""
        return frozenset(number for number, byte in enumerate(self._awake) if byte == NEVER)

    def resting(self, byte: int) -> frozenset[int]:
        """The literals that are not looked at now."""
        return frozenset(number for number, awake in enumerate(self._awake) if awake > byte)

    def tiresome(self, places: Sequence[Place], numbers: Sequence[int], byte: int) -> frozenset[int]:
        """Count places that led to no look; now and then the literals better left out, else none."""
        if numbers is not self._scanned:
            self._idle_places.clear()
            self._scanned = numbers
        if self._uncounted:
            self._uncounted -= 1
            return frozenset()
        self._idle_places.update(map(itemgetter(0), places))
        total = self._idle_places.total()
        if total < IDLE_PLACES:
            return frozenset()
        often = {
            numbers[n]: count
            for n, count in self._idle_places.items()
            if count > total * FREQUENT and self._awake[numbers[n]] > byte
        }
        self._idle_places.clear()
        if sum(often.values()) > total * WORTHWHILE:
            return frozenset(often)
        self._uncounted = UNCOUNTED
        return frozenset()
