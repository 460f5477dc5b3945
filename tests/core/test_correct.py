"""Corrections are proved: one that does not cure, or that brings a new complaint, is not offered."""

from collections.abc import Iterator

import pytest
from msgspec import structs

from vllm_doctor.check import Check, check
from vllm_doctor.correct import correct
from vllm_doctor.diagnose import Diagnosis, diagnose
from vllm_doctor.facts import Model, ModelSource, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot

EMPTY = Snapshot(host=Unknown("-"), gpus=Unknown("-"), environment=Unknown("-"), servers=Unknown("-"))


def refuses(flag: str, *edits: LaunchEdit) -> Check:
    """A check that refuses a flag and offers these edits."""

    @check(f"no-{flag.strip('-')}", causes=("bad-flag",), needs=("launch",))
    def function(snapshot: Snapshot) -> Iterator[Finding]:
        """The flag is refused."""
        assert snapshot.launch is not None
        if snapshot.launch.has(flag):
            fixes = tuple(Fix(title=f"edit {n}", launch=e, automatic=True) for n, e in enumerate(edits))
            yield error("bad-flag", f"{flag} is refused", evidence=(flag,), fixes=fixes)

    return function


def corrected(line: str, *checks: Check, model: Model | None = None) -> Diagnosis:
    """The diagnosis of a launch by these checks, corrected."""
    registry = Registry(checks)
    facts = structs.replace(EMPTY, launch=parse_line(line), model=model)
    return correct(diagnose(facts, registry), registry)


def titles(diagnosis: Diagnosis) -> list[list[str]]:
    return [[fix.title for fix in finding.fixes] for finding in diagnosis.findings]


DROP = LaunchEdit(unset=("--bad",))


def test_a_fix_that_cures_gives_the_corrected_command() -> None:
    made = corrected("X=1 vllm serve m --bad 1 --port 9", refuses("--bad", DROP))
    assert made.corrected == "X=1 vllm serve m --port 9"
    assert titles(made) == [["edit 0"]]


def test_a_fix_that_does_not_cure_is_not_offered() -> None:
    made = corrected("vllm serve m --bad 1", refuses("--bad", LaunchEdit(set={"--port": "9"})))
    assert (made.corrected, titles(made)) == (None, [[]])


def test_a_fix_that_brings_a_new_complaint_is_not_offered_and_the_next_one_is() -> None:
    worse = LaunchEdit(unset=("--bad",), set={"--worse": "1"})
    made = corrected("vllm serve m --bad 1", refuses("--bad", worse, DROP), refuses("--worse"))
    assert titles(made) == [["edit 1"]]
    assert made.corrected == "vllm serve m"


def test_a_fix_that_only_uncovers_the_next_complaint_is_told_and_not_offered() -> None:
    worse = LaunchEdit(unset=("--bad",), set={"--worse": "1"})
    made = corrected("vllm serve m --bad 1", refuses("--bad", worse), refuses("--worse"))
    assert titles(made) == [["edit 0, then mend what that uncovers: --worse is refused"]]
    assert made.findings[0].fixes[0].launch is None
    assert made.corrected is None


def test_a_fix_that_there_is_no_time_to_prove_stays_as_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_doctor.correct.MAXIMUM_PROOFS", 0)
    made = corrected("vllm serve m --bad 1", refuses("--bad", DROP))
    assert (made.corrected, titles(made)) == (None, [["edit 0"]])
    assert made.findings[0].fixes[0].launch is None


def test_what_no_command_mends_is_said_to_remain() -> None:
    @check("no-kernel", causes=("broken-install",), needs=())
    def installed(snapshot: Snapshot) -> Iterator[Finding]:
        """The kernels are gone."""
        yield error("broken-install", "The kernels are gone", evidence=("-",))

    made = corrected("vllm serve m --bad 1", refuses("--bad", DROP), installed)
    assert made.corrected == "vllm serve m"
    assert [finding.title for finding in made.remaining] == ["The kernels are gone"]


def test_several_findings_are_corrected_together() -> None:
    made = corrected(
        "vllm serve m --bad 1 --worse 2", refuses("--bad", DROP), refuses("--worse", LaunchEdit(unset=("--worse",)))
    )
    assert made.corrected == "vllm serve m"


def test_no_command_is_offered_while_a_complaint_about_it_remains() -> None:
    made = corrected("vllm serve m --bad 1 --worse 2", refuses("--bad", DROP), refuses("--worse"))
    assert made.corrected is None
    assert titles(made) == [["edit 0"], []]


def test_another_model_than_the_examined_one_is_not_known() -> None:
    model = Model(
        given="m", source=ModelSource.NOWHERE, path=None, revision=None, config=Unknown("-"), chat_template=None,
        tokenizer_files=(), weight_files=(), tensor_names=None, tensor_shapes=None, problems=(),
    )  # fmt: skip

    @check("model-known", causes=("model-not-found",), needs=("launch", "model"))
    def known_model(snapshot: Snapshot) -> Iterator[Finding]:
        """The model is refused."""
        fix = Fix(title="the real name", launch=LaunchEdit(positional="org/m"))
        yield error("model-not-found", "m is refused", evidence=("m",), fixes=(fix,))

    made = corrected("vllm serve m", known_model, model=model)
    assert made.corrected == "vllm serve org/m"
