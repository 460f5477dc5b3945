"""The smallest changes of a launch that make it fit, cheapest first; each is proved by planning again."""

from collections.abc import Sequence

from msgspec import Struct, structs

from vllm_doctor.finding import LaunchEdit
from vllm_doctor.memory.changes import ORDER, STEPS, Candidate, Change, utilization
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release
from vllm_doctor.memory.plan import NO_EXTRAS, REFUSED, Extras, Plan, Verdict, plan

MAXIMUM_ADVICE = 4

_NOT_MEMORY = REFUSED | {Verdict.GPU_BUSY}


class Advice(Struct, frozen=True, kw_only=True):
    """A change that was planned again: what to do in words, the edit, and the plan that it leads to.

    With it the launch fits: for certain, or (`certain` false) likely, so that the estimates' band decides.
    """

    title: str
    edit: LaunchEdit
    result: Plan

    @property
    def certain(self) -> bool:
        """Whether the launch fits with it at the pessimistic end of the estimates, too."""
        return self.result.fits


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
    """Changes that make the launch fit; none where it fits, or where no change of the flags helps.

    What likely does comes first, then single changes that do for certain; where no single one does, one combination
    from which nothing can be left out.
    """
    if case.plan.fits or case.plan.weights.uncounted is not None:
        return ()
    likely, certain = _likely(case), [a for change in _helping(case) if (a := _first(case, change)) is not None]
    if not certain and (together := _combined(case)) is not None:
        certain = [together]
    return tuple((*likely, *certain)[:MAXIMUM_ADVICE])


def _helping(case: Case) -> tuple[Change, ...]:
    return ORDER[case.plan.verdict if case.plan.verdict is not Verdict.FITS else case.plan.pessimistic]


def _first(case: Case, change: Change) -> Advice | None:
    """The smallest change of that kind with which the launch fits for certain."""
    for candidate in change(case.plan, case.settings, case.architecture):
        if (found := _advice(case, (candidate,))) is not None:
            return found
    return None


def _likely(case: Case) -> list[Advice]:
    """The largest share of the card, where it likely does what no share does for certain: it costs nothing to try."""
    if case.plan.verdict is Verdict.FITS or utilization not in _helping(case):
        return []
    results = []
    for candidate in utilization(case.plan, case.settings, case.architecture):
        result = case.with_changes((candidate,)).plan
        if result.fits:
            return []
        if result.verdict is Verdict.FITS:
            results.append(_told((candidate,), result))
    return results[-1:]


def _advice(case: Case, changes: Sequence[Candidate]) -> Advice | None:
    """The changes as advice where the launch fits with them for certain."""
    result = case.with_changes(changes).plan
    return _told(changes, result) if result.fits else None


def _told(changes: Sequence[Candidate], result: Plan) -> Advice:
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
