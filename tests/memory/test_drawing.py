"""The picture is as wide as asked, with Unicode and without."""

import pytest

from tests.memory.building import model, planned
from vllm_doctor.memory import drawing
from vllm_doctor.memory.capacity import capacities
from vllm_doctor.memory.facts import LaunchSettings

LAUNCHES = [
    ("meta-llama/Llama-3.1-8B-Instruct", "H100", LaunchSettings()),
    ("meta-llama/Llama-3.1-8B-Instruct", "L4", LaunchSettings(enforce_eager=True)),
    ("meta-llama/Llama-3.3-70B-Instruct", "H100", LaunchSettings()),
    ("Qwen/Qwen2.5-7B-Instruct", "RTX 3060 12GB", LaunchSettings()),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", "H200:2", LaunchSettings(tensor_parallel_size=2)),
]


@pytest.mark.parametrize("width", range(60, 121, 10))
@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize(("name", "board", "settings"), LAUNCHES)
def test_no_line_is_wider_than_asked(name, board, settings, unicode, width) -> None:  # type: ignore[no-untyped-def]
    rows = drawing.bar(planned(name, board, settings), width, unicode=unicode)
    assert max(len(row) for row in rows) <= width
    assert len(rows[0]) == width
    assert unicode or "\n".join(rows).isascii()


def test_every_part_is_in_the_bar_and_in_the_legend() -> None:
    rows = drawing.bar(planned("meta-llama/Llama-3.1-8B-Instruct", "H100"), 100)
    names = ["weights", "activations", "CUDA graphs", "other", "KV cache", "not taken"]
    for name, sign, row in zip(names, "█▓▒◦░·", rows[1:], strict=True):
        assert row.split()[0] == sign
        assert name in row
        assert sign in rows[0]


def test_a_model_that_is_too_large_runs_over_the_edge_of_the_card() -> None:
    rows = drawing.bar(planned("meta-llama/Llama-3.3-70B-Instruct", "H100"), 100)
    assert "|" in rows[0]
    assert "KV cache" not in "\n".join(rows)


def test_the_table_counts_requests_by_length() -> None:
    name = "meta-llama/Llama-3.1-8B-Instruct"
    found = planned(name, "L4", LaunchSettings(max_model_len=8192))
    rows = drawing.table(capacities(found, model(name), LaunchSettings(max_model_len=8192), None))
    assert rows[0].split() == ["context", "as", "launched", "FP8", "KV", "cache"]
    marked = next(row for row in rows if "< asked" in row)
    assert marked.split()[0] == "8,192"
    assert f"{found.max_concurrency:.1f} at once" in marked
    assert "does not fit" in rows[-1]


@pytest.mark.parametrize(("name", "board", "settings"), LAUNCHES)
def test_the_verdict_is_one_sentence(name, board, settings) -> None:  # type: ignore[no-untyped-def]
    text = drawing.sentence(planned(name, board, settings))
    assert text.endswith(".")
    assert text.startswith(("Fits", "Will not start", "Too close to call"))
