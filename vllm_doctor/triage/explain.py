"""A text to its explanation: the findings with their lines, the root cause first; nothing for a healthy text."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from msgspec import Struct, structs

from vllm_doctor import redact
from vllm_doctor.facts import Unknown
from vllm_doctor.finding import Confidence, Finding, Fix, Severity
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.triage import embedded, filling, telling, wrapped
from vllm_doctor.triage.kinds import kind_of
from vllm_doctor.triage.matcher import BLOCK_BYTES, Match, Matcher
from vllm_doctor.triage.ranking import Ranked, rank
from vllm_doctor.triage.signature import Role

# The beginning of a text is kept for a second look (wrapped lines, an environment report, a launch command).
KEPT_BYTES = 2 * 2**20

# A text that names more causes than this is no log of one server; the best ranked are shown.
MAXIMUM_CAUSES = 8

# A line of evidence longer than this is cut.
MAXIMUM_CHARACTERS = 600


class Line(Struct, frozen=True):
    """A line of the text: its number from 1, and its words without escapes and secrets."""

    number: int
    text: str


class Explained(Struct, frozen=True):
    """A finding and the lines that it was read off."""

    finding: Finding
    lines: tuple[Line, ...]


class Explanation(Struct, frozen=True, kw_only=True):
    """What a text says: findings, the root cause first; `telling` are the lines to look at where nothing was found.

    `snapshot` holds the facts of an environment report or launch command in the text, None where there is neither.
    """

    findings: tuple[Explained, ...]
    telling: tuple[Line, ...]
    snapshot: Snapshot | None
    lines: int


def explain_text(text: str | bytes) -> Explanation:
    """Explain a text that is in memory."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    return explain_stream(io.BytesIO(data))


def explain_stream(stream: BinaryIO) -> Explanation:
    """Explain a stream of any size, in memory that does not grow with it."""
    reading = Reading()
    block = stream.read(BLOCK_BYTES)
    while block:
        following = stream.read(BLOCK_BYTES)
        # A last line that nothing ends would be looked at on its own, apart from the lines it goes on from.
        reading.feed(block if following or block.endswith(b"\n") else block + b"\n")
        block = following
    return reading.explanation()


class Reading:
    """A text on its way: blocks in, an explanation at any time."""

    def __init__(self) -> None:
        self._matcher = Matcher()
        self._telling = telling.Telling()
        self._head: list[bytes] = []
        self._kept = 0
        # The first block waits: where it is the whole text, it may be read with its escaped lines parted instead.
        self._waiting: bytes | None = None
        self._is_escaped = False

    def feed(self, block: bytes) -> None:
        """Take more of the text."""
        if self._waiting is None and not self._kept:
            self._waiting = block
        else:
            if self._waiting is not None:
                self._decide(self._waiting)
            self._feed_waiting()
            self._matcher.feed(self._lines_of(block))
        self._telling.feed(block)
        if self._kept < KEPT_BYTES:
            self._head.append(block[: KEPT_BYTES - self._kept])
            self._kept += len(self._head[-1])

    def explanation(self) -> Explanation:
        """What the whole text says; nothing can be fed after it."""
        return self._explained(whole=True)

    def so_far(self) -> Explanation:
        """What the whole lines say that were read so far."""
        return self._explained(whole=False)

    def _feed_waiting(self) -> None:
        if self._waiting is not None:
            self._matcher.feed(self._waiting)
            self._waiting = None

    def _decide(self, first: bytes) -> None:
        """Whether a text of several blocks is a log in one string: then its first block is its head."""
        parted = wrapped.unescaped(first)
        if parted is not None:
            self._is_escaped = True
            self._head, self._kept = [parted], KEPT_BYTES
            self._waiting = parted

    def _lines_of(self, block: bytes) -> bytes:
        """The block with its own lines, where the text is a log in one string."""
        return (wrapped.unescaped(block) or block) if self._is_escaped else block

    def _matches(self, *, whole: bool) -> Sequence[Match]:
        self._feed_waiting()
        if whole:
            self._matcher.finish()
        else:
            self._matcher.look_at_rest()
        self._matcher.look_at_end()
        return self._matcher.matches

    def _explained(self, *, whole: bool) -> Explanation:
        head = b"".join(self._head)
        parted = None if self._is_escaped else wrapped.unescaped(head)
        ranked = rank(self._matches(whole=whole)) if parted is None else _ranked(parted)
        head = parted or head
        if not ranked or not _names_root(ranked):
            ranked = _second_reading(head) or ranked
        snapshot, judged = embedded.judge(head)
        findings = _one_ranking(
            [_explained(r) for r in ranked[:MAXIMUM_CAUSES]], judged, reported=_holds_report(snapshot)
        )
        return Explanation(
            findings=tuple(findings),
            telling=() if findings else tuple(_line(n, t) for n, t in self._telling.lines()),
            snapshot=snapshot,
            lines=self._telling.line_count,
        )


def _names_root(ranked: Sequence[Ranked]) -> bool:
    return bool(ranked) and ranked[0].best.signature.order < Role.HINT.rank


def _second_reading(head: bytes) -> tuple[Ranked, ...]:
    """The same text with lines joined that a terminal or a mail has wrapped; only what names a root cause counts."""
    joined = wrapped.unwrapped(head)
    if joined is None:
        return ()
    ranked = _ranked(joined)
    return ranked if _names_root(ranked) else ()


def _ranked(text: bytes) -> tuple[Ranked, ...]:
    matcher = Matcher()
    matcher.feed(text)
    matcher.finish()
    return rank(matcher.matches)


def _explained(ranked: Ranked) -> Explained:
    signature = ranked.best.signature
    certain = ranked.certain
    lines = tuple(_line(m.number, m.line.text) for m in sorted(ranked.matches, key=lambda m: m.number))
    title, fixes = _words(ranked)
    finding = Finding(
        cause=ranked.cause,
        severity=Severity.ERROR if certain else Severity.WARNING,
        confidence=Confidence.CERTAIN if certain else Confidence.LIKELY,
        title=redact.line(title),
        evidence=tuple(f"line {line.number}: {line.text}" for line in lines),
        fixes=fixes,
        check=f"text:{signature.id}",
    )
    return Explained(finding, lines)


def _words(ranked: Ranked) -> tuple[str, tuple[Fix, ...]]:
    """The title and the fixes: those of the kind that the lines show, else the signature's."""
    signature = ranked.best.signature
    captures = _captures(ranked.matches, ranked.best)

    def fill(found: Mapping[str, str]) -> Mapping[str, str]:
        return filling.values({**ranked.told, **captures, **found}, ranked.stage)

    shown = (match.line.text for match in (ranked.best, *ranked.matches))
    kind, known = kind_of(ranked.cause, signature.id, shown, fill) or (None, fill({}))
    title = kind and filling.filled(kind.title, known)
    return title or filling.title(signature, known), filling.fixes((kind or signature).fix, known)


def _captures(matches: Iterable[Match], best: Match) -> dict[str, str]:
    """The captures of the best match, completed by those of the same signature on other lines."""
    found: dict[str, str] = {}
    for match in matches:
        if match.signature.id == best.signature.id:
            found = {**match.captures, **found}
    return {**found, **best.captures}


def _line(number: int, text: str) -> Line:
    # Twice as much is looked at for secrets as is shown, so that none is cut in two and shown.
    return Line(number, redact.line(text[: 2 * MAXIMUM_CHARACTERS], MAXIMUM_CHARACTERS))


def _holds_report(snapshot: Snapshot | None) -> bool:
    return snapshot is not None and not isinstance(snapshot.environment, Unknown)


def _one_ranking(explained: list[Explained], judged: Sequence[Finding], *, reported: bool) -> list[Explained]:
    """Findings of the text and of its environment in one order: they confirm each other, or stand side by side.

    What the text itself complains of comes first; where it only says that something died, the environment's errors do.
    A text that complains of nothing is judged by its environment report alone: a launch command may stand in any prose.
    """
    if not explained and not reported:
        return []
    agreed = {f.cause: f for f in judged}
    confirmed = [_confirmed(e, agreed.get(e.finding.cause)) for e in explained]
    causes = {e.finding.cause for e in explained}
    others = [Explained(f, ()) for f in judged if f.cause not in causes and f.severity is Severity.ERROR]
    only_died = bool(explained) and explained[0].finding.cause == "engine-dead"
    return [*others, *confirmed] if only_died else [*confirmed, *others]


def _confirmed(explained: Explained, same: Finding | None) -> Explained:
    if same is None:
        return explained
    finding = explained.finding
    fixes = {f.title: f for f in (*finding.fixes, *same.fixes)}
    evidence = (
        *finding.evidence,
        *(f"the environment in the text says the same: {seen}" for seen in same.evidence[:3]),
    )
    return structs.replace(explained, finding=structs.replace(finding, evidence=evidence, fixes=tuple(fixes.values())))
