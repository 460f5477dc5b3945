"""The memory plan of a launch in every format: the same verdict, parts and requests at once."""

import xml.etree.ElementTree as ET
from functools import lru_cache
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from vllm_doctor.diagnose import Diagnosis, with_plan
from vllm_doctor.finding import error
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.reports import FORMATS, memory, text
from vllm_doctor.snapshot import read

HEALTHY = Path(__file__).parents[2] / "fixtures" / "snapshots" / "healthy-h100.json"
FITTING = "vllm serve Qwen/Qwen2.5-7B-Instruct"
TOO_LARGE = "vllm serve meta-llama/Llama-3.3-70B-Instruct"
TOO_LONG = "vllm serve Qwen/Qwen2.5-7B-Instruct --max-model-len 100000"


@lru_cache(maxsize=8)
def diagnosis(line: str) -> Diagnosis:
    found = with_plan(Diagnosis(snapshot=replace(read(HEALTHY), launch=parse_line(line)), findings=(), checks=()))
    assert found.plan is not None
    return found


@pytest.mark.parametrize("line", [FITTING, TOO_LARGE, TOO_LONG])
@pytest.mark.parametrize("name", ["text", "html", "markdown", "junit", "github"])
def test_the_verdict_and_the_cache_stand_in_every_format(name: str, line: str) -> None:
    found = diagnosis(line)
    assert found.plan is not None
    shown = text.plain(found, 200) if name == "text" else FORMATS[name](found)
    sentence = memory.sentence(found, found.plan)
    plain = shown.replace("&#39;", "'").replace("\\", "").replace("&amp;", "&")
    assert sentence in plain
    if name != "text":
        assert memory.cache_sentence(found.plan) in plain


@pytest.mark.parametrize("line", [FITTING, TOO_LARGE])
def test_the_parts_of_the_bar_fill_it(line: str) -> None:
    planned = diagnosis(line).plan
    assert planned is not None
    assert sum(part.percent for part in memory.parts(planned)) == pytest.approx(100, abs=0.1)
    assert (memory.edge(planned) is None) == (line == FITTING)
    assert ("here the card ends" in FORMATS["html"](diagnosis(line))) == (line == TOO_LARGE)


def test_markdown_has_a_bar_and_two_tables() -> None:
    lines = FORMATS["markdown"](diagnosis(FITTING)).splitlines()
    start = lines.index("### Memory of each GPU")
    bar = lines[lines.index("```text", start) + 1]
    assert bar.startswith("[█") and bar.endswith("]") and len(bar) <= 76
    assert "| part | size | |" in lines[start:]
    assert any(row.startswith("| █ weights | 14.2 GiB |") for row in lines[start:])
    head = lines.index("| context | as launched | FP8 KV cache |", start)
    assert lines[head + 1] == "|--:|--:|--:|"
    assert sum(row.startswith("| **32,768** |") for row in lines[head:]) == 1


def test_html_marks_the_asked_context() -> None:
    page = FORMATS["html"](diagnosis(FITTING))
    assert page.count('<tr class="asked">') == 1
    assert '<span class="weights" style="width: ' in page


def test_what_is_refused_has_no_asked_row() -> None:
    assert '<tr class="asked">' not in FORMATS["html"](diagnosis(TOO_LONG))
    found = diagnosis(TOO_LONG).plan
    assert found is not None
    assert [length for length, _, _ in memory.table(found).rows][-1] == "32,768"


def test_junit_has_it_as_a_property() -> None:
    root = ET.fromstring(FORMATS["junit"](diagnosis(FITTING)))
    told = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert (told["memory"] or "").startswith("Fits, with ")


def test_json_has_the_refusal() -> None:
    plan = msgspec.json.decode(FORMATS["json"](diagnosis(TOO_LONG)))["plan"]
    assert (plan["verdict"], plan["certainty"], plan["kv"]["tokens"]) == ("max-len-over-model", "certain", 0)
    assert plan["launch"]["corrected"] == "vllm serve Qwen/Qwen2.5-7B-Instruct --max-model-len 32768"


def test_memory_that_would_do_is_no_promise_where_another_thing_ends_the_launch() -> None:
    found = replace(diagnosis(FITTING), findings=(error("bad-flag", "no such flag", evidence=("--foo",)),))
    assert found.plan is not None
    assert memory.sentence(found, found.plan).startswith("As for memory alone: fits, with ")
    assert "As for memory alone: " in text.plain(found, 80)


def test_nothing_without_a_plan() -> None:
    found = replace(diagnosis(FITTING), plan=None)
    for name in ("html", "markdown", "junit", "github"):
        assert memory.HEADING not in FORMATS[name](found)
