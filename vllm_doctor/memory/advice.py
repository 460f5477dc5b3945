"""The smallest changes of a launch that make it fit, cheapest first; each is proved by planning again."""

from collections.abc import Iterator, Sequence

from msgspec import Struct, structs

from vllm_doctor.finding import LaunchEdit
from vllm_doctor.memory.changes import ORDER, STEPS, Candidate
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release
from vllm_doctor.memory.plan import NO_EXTRAS, Extras, Plan, Verdict, plan

MAXIMUM_ADVICE = 4

_NOT_MEMORY = frozenset({Verdict.GPU_BUSY, Verdict.GPU_COUNT, Verdict.TP_DIVISIBILITY})


class Advice(Struct, frozen=True, kw_only=True):
    """A change that was planned again and fits: what to do in words, the edit, and the plan that it leads to."""

    title: str
    edit: LaunchEdit
    result: Plan


class Case(Struct, frozen=True, kw_only=True):
    """A launch to be mended: what it was planned of, and the plan."""

    architecture: Architecture
    settings: LaunchSettings
    device: Device
    release: Release | None
    plan: Plan
    extras: Extras = NO_EXTRAS

    def with_changes(self, changes: Sequence[Candidate]) -> "Case":
        """The launch with the changes done to it, planned again."""
        settings = self.settings
        for change in changes:
            settings = structs.replace(settings, **change.changes)
        found = plan(self.architecture, settings, self.device, self.release, self.extras)
        return structs.replace(self, settings=settings, plan=found)


def advise(case: Case) -> tuple[Advice, ...]:
    """Changes that make the launch fit for certain; none where it fits, or where no change of the flags helps.

    Single changes first; where none is enough, one combination from which nothing can be left out.
    """
    if case.plan.fits:
        return ()
    found = [a for c in _single(case) if (a := _advice(case, (c,))) is not None]
    if found:
        return tuple(found[:MAXIMUM_ADVICE])
    together = _combined(case)
    return () if together is None else (together,)


def _single(case: Case) -> Iterator[Candidate]:
    verdict = case.plan.verdict if case.plan.verdict is not Verdict.FITS else case.plan.pessimistic
    for change in ORDER[verdict]:
        yield from change(case.plan, case.settings, case.architecture)


def _advice(case: Case, changes: Sequence[Candidate]) -> Advice | None:
    """The changes as advice where the launch fits with them."""
    result = case.with_changes(changes).plan
    if not result.fits:
        return None
    first, *others = (change.title for change in changes)
    title = "; ".join((first, *(f"{other[0].lower()}{other[1:]}" for other in others)))
    flags = {name: value for change in changes for name, value in change.edit.set.items()}
    return Advice(title=title, edit=LaunchEdit(set=flags), result=result)


def _combined(case: Case) -> Advice | None:
    """One change upon the other until the launch fits; then every one goes without which it still does."""
    kept: list[Candidate] = []
    now = case
    for step in STEPS:
        if now.plan.fits:
            break
        for candidate in step(now.plan, now.settings, now.architecture):
            then = case.with_changes((*kept, candidate))
            if then.plan.verdict not in _NOT_MEMORY and _is_better(then.plan, now.plan):
                kept.append(candidate)
                now = then
                break
    return _pruned(case, kept) if now.plan.fits else None


def _is_better(then: Plan, now: Plan) -> bool:
    more = then.kv_cache.low > now.kv_cache.low or then.safe_max_model_len > now.safe_max_model_len
    return more or then.fits or now.verdict in _NOT_MEMORY


def _pruned(case: Case, kept: list[Candidate]) -> Advice | None:
    """The costliest changes (the last ones) are left out first."""
    for candidate in reversed(kept):
        fewer = [c for c in kept if c is not candidate]
        if case.with_changes(fewer).plan.fits:
            kept = fewer
    return _advice(case, kept)
