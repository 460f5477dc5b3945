"""The literals of expressions."""

import pytest

from vllm_doctor.triage.literals import literals


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("no space left", {"no space left"}),
        (r"port (?P<port>\d+) is already taken", {"is already taken"}),
        (r"(?:alpha|beta) x", {"alpha", "beta"}),
        (r"a(?:long optional part)?b", set()),
        (r"colou?r of it", {"r of it"}),
        (r"[abc]{2,3}", set()),
        (r"\[rank\d\]: failed", {"]: failed"}),
        (r"say 'hello there'", {"hello there"}),
        ("one two|three four", {"one two", "three four"}),
        ("(?:没有|无法).{0,6}函数调用", {"函数调用"}),
        ("超时", {"超时"}),
        ("中|文", set()),
        ("zu groß", {"zu gro"}),
    ],
)
def test_the_best_literals(expression: str, expected: set[str]) -> None:
    assert literals(expression) == expected
