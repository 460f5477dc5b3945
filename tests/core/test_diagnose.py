"""The engine: five statuses, a crash is a result, order, and selection."""

from collections.abc import Iterator

import pytest

from vllm_doctor import diagnose as engine
from vllm_doctor.check import Check, NotApplicable, check, known
from vllm_doctor.diagnose import CheckResult, Selection, Status
from vllm_doctor.facts import Environment, Unknown
from vllm_doctor.finding import Finding, Severity, error, info, warning
from vllm_doctor.registry import BrokenPlugin, Registry
from vllm_doctor.snapshot import Snapshot

EMPTY = Snapshot(
    host=Unknown("no host"), gpus=Unknown("no NVML"), environment=Unknown("no python"), servers=Unknown("no /proc")
)


def make(name: str, function, *, causes=("bad-flag",), needs=(), platforms=()) -> Check:  # type: ignore[no-untyped-def]
    function.__doc__ = "A page."
    return check(name, causes=causes, needs=needs, platforms=platforms)(function)


def finds(*findings: Finding):  # type: ignore[no-untyped-def]
    def function(_snapshot: Snapshot) -> Iterator[Finding]:
        yield from findings

    return function


def raises(problem: Exception, *before: Finding):  # type: ignore[no-untyped-def]
    def function(_snapshot: Snapshot) -> Iterator[Finding]:
        yield from before
        raise problem

    return function


ONE = error("bad-flag", "one", evidence=("seen",))


@pytest.mark.parametrize(
    ("made", "status", "reason"),
    [
        (make("x", finds()), Status.PASSED, ""),
        (make("x", finds(ONE)), Status.FOUND, ""),
        (make("x", finds(), needs=("gpus",)), Status.UNKNOWN, "no NVML"),
        (make("x", finds(), needs=("launch",)), Status.SKIPPED, "no launch command was given"),
        (make("x", raises(NotApplicable("not here"))), Status.SKIPPED, "not here"),
        (make("x", lambda s: iter([known(s.host)])), Status.UNKNOWN, "no host"),
        (make("x", raises(KeyError("k"))), Status.CRASHED, "KeyError: 'k' (tests)"),
        (make("x", raises(KeyError("k"), ONE)), Status.CRASHED, "KeyError: 'k' (tests)"),
    ],
)
def test_status(made: Check, status: Status, reason: str) -> None:
    _, result = engine.run_check(made, EMPTY)
    assert (result.status, result.reason) == (status, reason)


def test_what_was_found_before_a_fact_was_missing_stays_found() -> None:
    def function(snapshot: Snapshot) -> Iterator[Finding]:
        yield ONE
        known(snapshot.host)

    found, result = engine.run_check(make("x", function), EMPTY)
    assert [f.title for f in found] == ["one"]
    assert (result.status, result.reason) == (Status.FOUND, "no host")


def test_a_check_for_cuda_builds_is_skipped_for_a_cpu_build() -> None:
    environment = Environment(
        python="p", python_version="3.12", implementation="cpython", prefix="/", kind="venv", named_by="--python",
        markers={}, openssl_version="3", search_path=(), commands={}, distributions=(), torch=None, vllm=None,
        extensions=(), shadows=(),
    )  # fmt: skip
    from vllm_doctor.facts import VllmBuild

    build = VllmBuild(
        path="/v", distribution="vllm", metadata_version="1", package_version="1", platform="cpu", extensions=()
    )
    from msgspec import structs

    facts = structs.replace(EMPTY, environment=structs.replace(environment, vllm=build))
    _, result = engine.run_check(make("x", finds(ONE), platforms=("cuda",)), facts)
    assert (result.status, result.reason) == (
        Status.SKIPPED,
        "for CUDA builds only; this vLLM is a CPU build",
    )


def test_worst_first_and_root_causes_before_their_consequences() -> None:
    registry = Registry(
        (
            make("a", finds(info("bad-flag", "i", evidence=()), error("gpu-busy", "busy", evidence=()))),
            make("b", finds(warning("driver-too-old", "w", evidence=()), error("driver-too-old", "old", evidence=()))),
            make("c", finds(error("acme.own", "own", evidence=()))),
        )
    )
    made = engine.diagnose(EMPTY, registry)
    assert [f.title for f in made.findings] == ["old", "busy", "own", "w", "i"]
    assert made.worst is Severity.ERROR
    assert [f.check for f in made.findings] == ["b", "a", "c", "b", "a"]


def test_selection_by_check_and_by_cause() -> None:
    both = make("both", finds(ONE, warning("flag-conflict", "two", evidence=())), causes=("bad-flag", "flag-conflict"))
    other = make("other", finds(error("gpu-busy", "three", evidence=())), causes=("gpu-busy",))
    registry = Registry((both, other))

    def titles(selection: Selection) -> list[str]:
        return [f.title for f in engine.diagnose(EMPTY, registry, selection).findings]

    assert titles(Selection(select=frozenset({"both"}))) == ["one", "two"]
    assert titles(Selection(select=frozenset({"flag-conflict"}))) == ["two"]
    assert titles(Selection(ignore=frozenset({"both"}))) == ["three"]
    assert titles(Selection(ignore=frozenset({"bad-flag"}))) == ["three", "two"]
    assert engine.diagnose(EMPTY, registry, Selection(ignore=frozenset({"gpu-busy"}))).checks[1] == CheckResult(
        id="other", status=Status.SKIPPED, reason="deselected", package="tests"
    )


def test_a_broken_plugin_is_a_result() -> None:
    made = engine.diagnose(EMPTY, Registry((), (BrokenPlugin("acme", "acme-checks", "ImportError: no"),)))
    assert made.checks == (
        CheckResult(id="plugin:acme", status=Status.CRASHED, reason="ImportError: no", package="acme-checks"),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"id": "Bad Id", "causes": ("x",), "needs": ()},
        {"id": "x", "causes": (), "needs": ()},
        {"id": "x", "causes": ("x",), "needs": ("weather",)},
    ],
)
def test_a_check_without_id_causes_or_real_needs_is_refused(arguments) -> None:  # type: ignore[no-untyped-def]
    def function(_snapshot: Snapshot) -> Iterator[Finding]:
        """A page."""
        yield ONE

    name = arguments.pop("id")
    with pytest.raises(ValueError, match="check"):
        check(name, **arguments)(function)


def test_a_check_without_a_docstring_is_refused() -> None:
    with pytest.raises(ValueError, match="docstring"):
        check("x", causes=("x",), needs=())(finds())
