"""Which fixes are tried unasked, and in what order."""

import pytest
from msgspec import structs

from tests.cli.calling import FIXTURES
from vllm_doctor.facts import ChatTemplate, Model
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.snapshot import Snapshot, read
from vllm_doctor.trial.mending import HOPELESS, needing_yes, remedies, unasked

CPU = read(FIXTURES / "snapshots" / "healthy-cpu.json")
MODEL = read(FIXTURES / "snapshots" / "model-llama-h100.json").model
HERMES = '{% for t in tools %}<tool_call>{"name": 1, "arguments": 2}</tool_call>{% endfor %}'


def launched(line: str, template: str = HERMES) -> Snapshot:
    assert isinstance(MODEL, Model)
    assert isinstance(MODEL.chat_template, ChatTemplate)
    model = structs.replace(MODEL, chat_template=structs.replace(MODEL.chat_template, text=template))
    return structs.replace(CPU, launch=parse_line(line), model=model)


def found(cause: str, *fixes: Fix) -> Finding:
    return error(cause, "it fails", evidence=("seen",), fixes=fixes)


@pytest.mark.parametrize(
    ("edit", "automatic", "tried"),
    [
        pytest.param(LaunchEdit(set={"--max-model-len": "1"}), False, True, id="a mild flag of a log"),
        pytest.param(LaunchEdit(set={"--kv-cache-dtype": "fp8"}), False, False, id="other numbers"),
        pytest.param(LaunchEdit(set={"--kv-cache-dtype": "fp8"}), True, True, id="what a check calls automatic"),
        pytest.param(LaunchEdit(set={"--trust-remote-code": None}), False, False, id="foreign code"),
        pytest.param(LaunchEdit(positional="other/model"), False, False, id="another model"),
        pytest.param(LaunchEdit(env={"A": "b"}), False, False, id="a variable"),
        pytest.param(LaunchEdit(env={"A": "b"}), True, True, id="a misspelt variable"),
        pytest.param(LaunchEdit(set={"--chat-template": "FILE.jinja"}), False, False, id="a place for a name"),
        pytest.param(LaunchEdit(unset=("--chat-template",)), False, True, id="without a template that is not there"),
        pytest.param(None, False, False, id="words only"),
    ],
)
def test_what_is_tried_unasked(edit: LaunchEdit | None, automatic: bool, tried: bool) -> None:
    assert (unasked(Fix(title="x", launch=edit, automatic=automatic)) is not None) is tried


def test_what_is_not_tried_unasked_may_be_asked_for() -> None:
    code, place = LaunchEdit(set={"--trust-remote-code": None}), LaunchEdit(set={"--chat-template": "FILE.jinja"})
    mild = LaunchEdit(set={"--port": "1"})
    fixes = (Fix(title="code", launch=code), Fix(title="place", launch=place), Fix(title="mild", launch=mild))
    assert [remedy.title for remedy in needing_yes(found("trust-remote-code", *fixes))] == ["code"]


@pytest.mark.parametrize("cause", sorted(HOPELESS))
def test_what_no_flag_mends_has_no_remedy(cause: str) -> None:
    fix = Fix(title="x", launch=LaunchEdit(set={"--max-model-len": "1"}), automatic=True)
    assert remedies((found(cause, fix),), launched("vllm serve m")) == ()


def test_what_costs_least_comes_first() -> None:
    flags = ("--tensor-parallel-size", "--enforce-eager", "--max-model-len", "--max-num-seqs", "--port", "--trust-x")
    fixes = (Fix(title=name, launch=LaunchEdit(set={name: "1"}), automatic=True) for name in flags)
    order = [remedy.title for remedy in remedies((found("oom-kv", *fixes),), launched("vllm serve m"))]
    assert order == list(reversed(flags))


PARSER = LaunchEdit(set={"--enable-auto-tool-choice": None, "--tool-call-parser": "hermes"})


@pytest.mark.parametrize(
    ("line", "cause", "edit"),
    [
        ("vllm serve m", "tools-not-enabled", LaunchEdit(set={"--enable-auto-tool-choice": None})),
        ("vllm serve m --tool-call-parser pythonic", "tool-parser-wrong", LaunchEdit(set={"--x": "y"})),
        ("vllm serve m --enable-auto-tool-choice", "flag-conflict", LaunchEdit(unset=("--enable-auto-tool-choice",))),
    ],
)
def test_tools_get_the_parser_of_the_models_template(line: str, cause: str, edit: LaunchEdit) -> None:
    fix = Fix(title="x", launch=edit, automatic=True)
    assert remedies((found(cause, fix),), launched(line))[0].edit == PARSER


def test_a_template_that_shows_no_format_names_no_parser() -> None:
    alone = Fix(title="x", launch=LaunchEdit(set={"--enable-auto-tool-choice": None}))
    assert remedies((found("tools-not-enabled", alone),), launched("vllm serve m", "{{ messages }}")) == ()


def test_a_port_that_was_taken_meanwhile_is_changed_for_a_free_one() -> None:
    (remedy,) = remedies((found("port-in-use", Fix(title="Stop who holds it")),), launched("vllm serve m"))
    assert list(remedy.edit.set) == ["--port"]
    assert (remedy.edit.set["--port"] or "").isdecimal()
