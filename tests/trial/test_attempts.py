"""The attempts: the given command first, the cheapest change next, no command twice, and an end where nothing helps."""

from collections.abc import Iterator

from msgspec import structs

from vllm_doctor.check import Check, check
from vllm_doctor.diagnose import Selection
from vllm_doctor.facts import Launch, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error
from vllm_doctor.launch import render
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.trial.attempts import Attempt, Doctor, attempts
from vllm_doctor.trial.leftovers import LeftBehind
from vllm_doctor.trial.mending import Remedy
from vllm_doctor.trial.trial import Outcome

EMPTY = Snapshot(host=Unknown("-"), gpus=Unknown("-"), environment=Unknown("-"), servers=Unknown("-"))


def fix(title: str, *, automatic: bool = False, **flags: str | None) -> Fix:
    edit = LaunchEdit(set={f"--{name.replace('_', '-')}": value for name, value in flags.items()})
    return Fix(title=title, launch=edit, automatic=automatic)


def served() -> Outcome:
    return Outcome(findings=(), left_behind=LeftBehind(), seconds=2.0, ready_seconds=1.0)


def failed(cause: str, *fixes: Fix) -> Outcome:
    found = error(cause, f"it fails of {cause}", evidence=("seen",), fixes=fixes)
    return Outcome(findings=(found,), left_behind=LeftBehind(), seconds=2.0, stage="load", exit_code=1)


class Machine:
    """Starts nothing: what becomes of a launch is what the test says of its flags."""

    def __init__(self, *rules: tuple[str, Outcome]) -> None:
        self.rules = rules
        self.started: list[str] = []

    def start(self, launch: Launch) -> Outcome:
        line = render.command_line(launch)
        self.started.append(line)
        return next((outcome for words, outcome in self.rules if words in line), served())


def tried(
    line: str, machine: Machine, *checks: Check, maximum: int = 3, asked: dict[str, Remedy] | None = None
) -> list[Attempt]:
    doctor = Doctor(
        registry=Registry(checks),
        selection=Selection(),
        start=machine.start,
        asked=lambda finding: (asked or {}).get(finding.cause),
    )
    return list(attempts(structs.replace(EMPTY, launch=parse_line(line)), doctor, maximum))


def told(found: list[Attempt]) -> list[tuple[str, str | None]]:
    return [(attempt.command, attempt.cause) for attempt in found]


def test_a_launch_that_serves_is_one_attempt_and_is_told_as_typed() -> None:
    found = tried("A='x y' vllm serve m", Machine())
    assert told(found) == [("A='x y' vllm serve m", None)]
    assert found[0].serves


def test_the_change_that_costs_least_is_tried_first() -> None:
    outcome = failed("oom-kv", fix("slower", enforce_eager=None), fix("shorter", max_model_len="8192"))
    machine = Machine(("--max-model-len", served()), ("", outcome))
    found = tried("vllm serve m --port 1", machine)
    assert [a.changes for a in found] == [(), ("shorter",)]
    assert told(found)[-1] == ("vllm serve m --port 1 --max-model-len 8192", None)


def test_each_failure_is_mended_on_top_of_the_last_and_not_more_often_than_asked() -> None:
    machine = Machine(
        ("--max-num-seqs 8", failed("oom-activation", fix("fewest", max_num_seqs="1"))),
        ("--max-num-seqs 64", failed("oom-activation", fix("fewer", max_num_seqs="8"))),
        ("", failed("oom-activation", fix("few", max_num_seqs="64"))),
    )
    assert len(tried("vllm serve m", machine)) == 3
    assert machine.started == [
        "vllm serve m",
        "vllm serve m --max-num-seqs 64",
        "vllm serve m --max-num-seqs 8",
    ]
    assert len(tried("vllm serve m", machine, maximum=1)) == 1


def test_no_command_is_tried_twice() -> None:
    there = fix("there", gpu_memory_utilization="0.9")
    back = fix("back", gpu_memory_utilization="0.8")
    machine = Machine(("0.8", failed("gpu-busy", there)), ("0.9", failed("gpu-busy", back)))
    found = tried("vllm serve m --gpu-memory-utilization 0.8", machine, maximum=9)
    assert len(found) == len(set(machine.started)) == 2


def test_a_fix_that_needs_a_yes_is_not_tried_unasked() -> None:
    outcome = failed("trust-remote-code", fix("allow it", trust_remote_code=None))
    machine = Machine(("--trust-remote-code", served()), ("", outcome))
    assert told(tried("vllm serve m", machine)) == [("vllm serve m", "trust-remote-code")]
    yes = Remedy(title="allow it", edit=LaunchEdit(set={"--trust-remote-code": None}), cost=6)
    assert tried("vllm serve m", machine, asked={"trust-remote-code": yes})[-1].serves


def test_a_cause_that_no_flag_mends_ends_at_once() -> None:
    machine = Machine(("", failed("model-files-incomplete", fix("shorter", max_model_len="1"))))
    assert len(tried("vllm serve m", machine)) == 1


def refuses(flag: str, cause: str, *fixes: Fix) -> Check:
    @check(f"no-{flag.strip('-')}", causes=(cause,), needs=("launch",))
    def function(snapshot: Snapshot) -> Iterator[Finding]:
        """The flag is refused."""
        assert snapshot.launch is not None
        if snapshot.launch.has(flag):
            yield error(cause, f"{flag} is refused", evidence=(flag,), fixes=fixes)

    return function


def test_what_the_checks_are_certain_of_is_mended_before_anything_is_started() -> None:
    drop = [Fix(title=f"drop {n}", launch=LaunchEdit(unset=(n,)), automatic=True) for n in ("--one", "--two")]
    checks = refuses("--one", "bad-flag", drop[0]), refuses("--two", "flag-conflict", drop[1])
    machine = Machine()
    found = tried("vllm serve m --one 1 --two 2", machine, *checks)
    assert told(found) == [("vllm serve m --one 1 --two 2", "bad-flag"), ("vllm serve m", None)]
    assert found[0].outcome is None
    assert found[1].changes == ("drop --one", "drop --two")
    assert machine.started == ["vllm serve m"]


def test_a_change_that_another_makes_void_is_not_told() -> None:
    lower = Fix(title="lower", launch=LaunchEdit(set={"--one": "1"}), automatic=True)
    drop = Fix(title="drop", launch=LaunchEdit(unset=("--one",)), automatic=True)

    @check("too-high", causes=("tp-divisibility",), needs=("launch",))
    def too_high(snapshot: Snapshot) -> Iterator[Finding]:
        """The value is too high."""
        assert snapshot.launch is not None
        if snapshot.launch.value("--one") == "9":
            yield error("tp-divisibility", "9 is too high", evidence=("9",), fixes=(lower,))

    found = tried("vllm serve m --one 9", Machine(), too_high, refuses("--one", "gpu-count", drop))
    assert [attempt.changes for attempt in found] == [(), ("drop",)]


def test_where_one_certain_fault_has_no_fix_nothing_is_started() -> None:
    checks = refuses("--one", "bad-flag"), refuses("--two", "bad-flag", fix("mend", two=None))
    machine = Machine()
    assert len(tried("vllm serve m --one 1 --two 2", machine, *checks)) == 1
    assert machine.started == []


def test_a_change_that_a_check_refuses_is_mended_as_well_or_left() -> None:
    outcome = failed("oom-kv", fix("shorter", max_model_len="1"), fix("slower", enforce_eager=None))
    machine = Machine(("--enforce-eager", served()), ("", outcome))
    found = tried("vllm serve m", machine, refuses("--max-model-len", "bad-flag"))
    assert machine.started == ["vllm serve m", "vllm serve m --enforce-eager"]
    assert found[-1].serves
