"""Folding facts into runs and reading them back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor.releases import packing, store

VERSIONS = ("0.1", "0.2", "0.3", "0.4")

tables = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)), min_size=len(VERSIONS), max_size=len(VERSIONS)
)


@given(tables)
def test_what_is_folded_reads_back(facts: list[dict[str, int]]) -> None:
    runs = packing.pack(VERSIONS, facts)
    positions = {version: position for position, version in enumerate(VERSIONS)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "_positions", lambda: positions)
        assert [store.at(runs, version) for version in VERSIONS] == facts


@given(tables)
def test_the_text_is_json(facts: list[dict[str, int]]) -> None:
    runs = packing.pack(VERSIONS, facts)
    assert msgspec.json.decode(packing.spans_text(runs), type=store.Runs[int]) == runs


def test_runs_are_lines() -> None:
    runs = packing.pack(VERSIONS, [{}, {"a": 1}, {"a": 2}, {"a": 2}])
    assert packing.spans_text(runs) == '{\n "a": [\n  ["0.2","0.2",1],\n  ["0.3",null,2]]\n}\n'
