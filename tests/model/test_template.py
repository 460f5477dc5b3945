"""What the syntax tree of a chat template shows, and where a template is found."""

from pathlib import Path

import pytest

from tests.model import folders
from vllm_doctor.facts import ChatTemplate, Unknown
from vllm_doctor.probes.model import probe_model
from vllm_doctor.probes.model.syntax import parsed

GENERIC = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + GENERIC
ROLES = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}"
)
LOOP = "{% for m in messages %}{% if m.role == 'x' %}{% continue %}{% endif %}{{ m.role }}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "tools", "system"),
    [
        (GENERIC, False, True),
        (STRICT, False, False),
        (ROLES, False, False),
        (folders.TEMPLATE, True, True),
        ("{% if 'system' in roles %}{{ messages }}{% endif %}", False, True),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", False, True),
        (LOOP, False, True),
        ("{% macro f(tools) %}{% endmacro %}plain", True, False),
        ("", False, False),
    ],
)
def test_what_a_template_reads(text: str, tools: bool, system: bool) -> None:
    tree = parsed(text)
    assert (tree.uses_tools, tree.uses_system, tree.error) == (tools, system, None)


@pytest.mark.parametrize("text", ["{% if x %}", "{{ x", "{% nonsense %}", "{% for %}{% endfor %}", "{{ x | }}"])
def test_errors_name_their_line(text: str) -> None:
    error = parsed("\n\n" + text).error
    assert error is not None
    assert error.startswith("line 3")


def test_deep_templates() -> None:
    assert parsed("{{ " + "(" * 5000 + "x" + ")" * 5000 + " }}").error is not None


def template(folder: Path) -> ChatTemplate | Unknown | None:
    return probe_model(str(folder)).chat_template


def test_where_it_is_found(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    folders.write_tokenizer(folder, None)
    assert template(folder) is None
    folders.write_tokenizer(
        folder, [{"name": "default", "template": GENERIC}, {"name": "tool_use", "template": "{{ tools }}"}]
    )
    named = template(folder)
    assert isinstance(named, ChatTemplate)
    assert (named.source, named.uses_tools) == ("tokenizer_config.json (default, tool_use)", True)
    folders.write_json(folder / "chat_template.json", {"chat_template": STRICT})
    processor = template(folder)
    assert isinstance(processor, ChatTemplate)
    assert processor.source == "chat_template.json"
    (folder / "chat_template.jinja").write_text(ROLES)
    own = template(folder)
    assert isinstance(own, ChatTemplate)
    assert own.source == "chat_template.jinja"


@pytest.mark.parametrize("value", ["", 7, [], [{"name": 1}], {"default": "x"}, True])
def test_values_that_are_no_template(value: object, tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    folders.write_tokenizer(folder, value)
    assert template(folder) is None


def test_a_mistral_tokenizer_has_its_own(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    folders.write_tokenizer(folder, None)
    folders.write_json(folder / "tekken.json", {"special_tokens": [{"token_str": "[TOOL_CALLS]"}]})
    assert isinstance(template(folder), Unknown)
