"""From matches to the root cause: cause over consequence, certain over likely, worker over engine over API server."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from vllm_doctor.triage import reader
from vllm_doctor.triage.matcher import Match
from vllm_doctor.triage.signature import Role
from vllm_doctor.triage.stage import Stages

# Lines kept as the evidence of one cause.
MAXIMUM_LINES = 4


class Ranked(Struct, frozen=True, kw_only=True):
    """One cause with the match that stands for it, and every match that says the same.

    `told` is what the signatures of facts captured anywhere in the text: vLLM's `version`, the `served` model.
    """

    cause: str
    best: Match
    matches: tuple[Match, ...]
    stage: str
    told: Mapping[str, str]

    @property
    def certain(self) -> bool:
        """Whether the match leaves no doubt."""
        signature = self.best.signature
        told_by_stage = self.stage in signature.by_stage
        return told_by_stage or signature.role in (Role.CAUSE, Role.CONSEQUENCE)


class _Candidate(Struct, frozen=True):
    match: Match
    cause: str
    stage: str

    @property
    def key(self) -> tuple[int, int, int]:
        signature = self.match.signature
        return signature.order, reader.rank_of(self.match.line.process), self.match.number


def rank(matches: Sequence[Match]) -> tuple[Ranked, ...]:
    """The causes that the matches name, the root cause first; what follows a normal stop does not count."""
    live = _without_shutdown(matches)
    stages = Stages(matches)
    candidates = sorted(_candidates(live, stages, {m.signature.id for m in live}), key=lambda c: c.key)
    standing = _without_outranked(candidates)
    found: dict[str, list[_Candidate]] = {}
    for candidate in standing:
        found.setdefault(candidate.cause, []).append(candidate)
    told = _told(matches)
    return _with_lines_of_their_own([_joined(cause, members, told) for cause, members in _kept(found).items()])


def _with_lines_of_their_own(ranked: Sequence[Ranked]) -> tuple[Ranked, ...]:
    """Without causes that are read off nothing but the lines of the root cause: one line tells of one fault."""
    root = {match.number for match in ranked[0].matches} if ranked else set()
    return tuple(r for r in ranked if r is ranked[0] or not root.issuperset(match.number for match in r.matches))


def _told(matches: Iterable[Match]) -> dict[str, str]:
    """The first capture of every name by a signature of facts."""
    told: dict[str, str] = {}
    for match in matches:
        if match.signature.role is Role.FACT:
            told = {**match.captures, **told}
    return told


def _without_shutdown(matches: Sequence[Match]) -> list[Match]:
    """Without what follows an orderly stop, up to the next start: such lines look like faults and are none."""
    kept: list[Match] = []
    stopped = False
    for match in matches:
        if match.signature.stage == "stop":
            stopped = True
        elif match.signature.stage == "start":
            stopped = False
        if not stopped or match.signature.role is Role.FACT:
            kept.append(match)
    return kept


def _candidates(matches: Iterable[Match], stages: Stages, present: set[str]) -> Iterable[_Candidate]:
    for match in matches:
        signature = match.signature
        if signature.role in (Role.MARKER, Role.FACT):
            continue
        if not present.issuperset(signature.needs) or not present.isdisjoint(signature.not_with):
            continue
        stage = stages.at(match) if signature.stages or signature.by_stage else ""
        if signature.stages and stage not in signature.stages:
            continue
        cause = signature.by_stage.get(stage, signature.cause)
        if cause:
            yield _Candidate(match, cause, stage)


def _without_outranked(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    outranked = {name for c in candidates for name in c.match.signature.outranks}
    standing = [c for c in candidates if c.match.signature.id not in outranked and c.cause not in outranked]
    return standing or list(candidates)


def _kept(found: dict[str, list[_Candidate]]) -> dict[str, list[_Candidate]]:
    """Consequences and hints only where nothing better was found; a hint only as the best one."""
    best = min((members[0].match.signature.order for members in found.values()), default=0)
    if best >= Role.HINT.rank:
        return dict(list(found.items())[:1])
    return {cause: members for cause, members in found.items() if members[0].match.signature.order < Role.HINT.rank}


def _joined(cause: str, members: Sequence[_Candidate], told: Mapping[str, str]) -> Ranked:
    matches: list[Match] = []
    seen: set[str] = set()
    for candidate in members:
        if candidate.match.line.text not in seen and len(matches) < MAXIMUM_LINES:
            seen.add(candidate.match.line.text)
            matches.append(candidate.match)
    best, stage = members[0].match, members[0].stage
    return Ranked(cause=cause, best=best, matches=tuple(matches), stage=stage, told=told)
