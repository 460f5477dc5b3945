"""The catalogue of models: its configs count what their publishers say, and near names are suggested."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_doctor.memory import catalogue
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.catalogue.comparison import digest, facts_of
from vllm_doctor.memory.facts import Architecture, Tensor


def tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    layers = [t for kind in architecture.layers for t in architecture.kinds[kind].tensors]
    return (*layers, *architecture.first, *architecture.last, *architecture.towers)


def counted(name: str) -> int:
    entry = catalogue.find(name)
    assert entry is not None
    return sum(t.parameters for t in tensors(read_architecture(entry.config_json)))


ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "compare_catalogue.py"
ENTRIES = {n: e for n in catalogue.names() if (e := catalogue.find(n)) is not None}
COMPARED = sorted(n for n, e in ENTRIES.items() if e.compared is not None)
PUBLISHED = sorted({e.config_json: n for n in catalogue.names() if (e := catalogue.find(n)) and e.parameters}.values())


def test_there_are_many_models() -> None:
    assert len(catalogue.names()) >= 150
    assert len(PUBLISHED) >= 110


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_config_counts_the_published_parameters(name: str) -> None:
    entry = catalogue.find(name)
    assert entry is not None and entry.parameters is not None
    # An encoder that is estimated says so, and is a small part of the whole.
    near = 3e-3 if read_architecture(entry.config_json).approximations else 1e-3
    assert counted(name) == pytest.approx(entry.parameters, rel=near)


@pytest.mark.parametrize("name", catalogue.names())
def test_every_entry_is_complete(name: str) -> None:
    entry = catalogue.find(name)
    assert entry is not None
    assert entry.source.startswith("https://huggingface.co/")
    assert entry.chat or entry.tool_parser is None
    read_architecture(entry.config_json)


def test_tool_parsers_are_ones_that_vllm_has() -> None:
    from vllm_doctor.releases import newest, release

    found = release(newest())
    assert found is not None
    assert {e.tool_parser for n in catalogue.names() if (e := catalogue.find(n))} - {None} <= set(found.tool_parsers)
    assert {e.reasoning_parser for n in catalogue.names() if (e := catalogue.find(n))} - {None} <= set(
        found.reasoning_parsers
    )


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Qwen2.5-7B-instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("meta-llama/Lama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("mixtral-8x7b-instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("openai/gpt-oss20b", "openai/gpt-oss-20b"),
    ],
)
def test_near_names_are_suggested(name: str, first: str) -> None:
    assert catalogue.suggest(name)[0] == first


def test_another_size_is_no_misspelling() -> None:
    assert catalogue.suggest("Qwen/Qwen2.5-9B-Instruct") == ()


def test_letter_case_does_not_count() -> None:
    entry = catalogue.find("qwen/qwen2.5-7b-instruct")
    assert entry is not None and entry.name == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("name", "base", "method"),
    [
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "meta-llama/Meta-Llama-3.1-8B-Instruct", 4),
        ("redhatai/Llama-3.3-70B-Instruct-quantized.w8a8", "meta-llama/Llama-3.3-70B-Instruct", 8),
        ("RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic", "Qwen/Qwen2.5-7B-Instruct", 8),
        ("TheBloke/Llama-2-7B-Chat-GPTQ", "meta-llama/Llama-2-7b-chat-hf", 4),
        ("TheBloke/Mixtral-8x7B-Instruct-v0.1-AWQ", "mistralai/Mixtral-8x7B-Instruct-v0.1", 4),
        ("Qwen/Qwen3-4B-Instruct-2507-FP8", "Qwen/Qwen3-4B-Instruct-2507", 8),
    ],
)
def test_quantized_copies_are_known_by_their_base(name: str, base: str, method: int) -> None:
    entry = catalogue.find(name)
    assert entry is not None and entry.derived_from == base
    quantization = read_architecture(entry.config_json).quantization
    assert quantization is not None and quantization.bits == method


@pytest.mark.parametrize("name", ["", "x", "someone/Qwen2.5-7B-Instruct-FP8-dynamic", "RedHatAI/x-FP8", "a/b/c/d"])
def test_an_unknown_name_is_not_found(name: str) -> None:
    assert catalogue.find(name) is None


@pytest.mark.parametrize("name", COMPARED)
def test_what_was_compared_has_not_changed_since(name: str) -> None:
    entry = ENTRIES[name]
    assert entry.compared is not None
    config = json.loads(entry.config_json)
    assert entry.compared.sources
    assert set(entry.compared.facts or ()) <= facts_of(config).keys()
    assert digest(config, entry.compared.facts) == entry.compared.digest


def test_a_digest_stands_for_the_compared_facts_only() -> None:
    config = {"hidden_size": 1, "text_config": {"vocab_size": 2}, "other": 3}
    facts = ["hidden_size", "text_config.vocab_size"]
    whole = digest(config, None)
    assert digest({**config, "other": 4}, facts) == digest(config, facts)
    assert digest({**config, "text_config": {"vocab_size": 3}}, facts) != digest(config, facts)
    assert digest({**config, "other": 4}, None) != whole
    assert digest({**config, "another": 1}, None) != whole


def test_the_readme_says_how_much_was_compared() -> None:
    data = json.loads((ROOT / "vllm_doctor/memory/catalogue/models.json").read_text())
    compared = [row.get("compared") for row in data]
    whole = sum(c is not None and "facts" not in c for c in compared)
    partly = sum(c is not None and "facts" in c for c in compared)
    said = re.search(r"of (\d+) configs, (\d+) agree .*? (\d+) in some facts, and (\d+)", readme())
    assert said is not None
    assert [int(n) for n in said.groups()] == [len(data), whole, partly, compared.count(None)]


def readme() -> str:
    return " ".join((ROOT / "README.md").read_text().split())


QWEN = "Qwen/Qwen2.5-7B-Instruct"


def compare_with(folder: Path, name: str, config: dict[str, Any]) -> str:
    """What the script prints for one copy."""
    (folder / name).mkdir(parents=True)
    (folder / name / "config.json").write_text(json.dumps(config))
    command = [sys.executable, str(SCRIPT), str(folder), "a test"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_copy_that_agrees_is_compared_as_a_whole(tmp_path: Path) -> None:
    published = {**json.loads(ENTRIES[QWEN].config_json), "bos_token_id": 151643, "sliding_window": 131072}
    assert compare_with(tmp_path, QWEN, published) == f"{QWEN}: whole, differ: {{}}, planned otherwise: []\n"


def test_a_fact_that_the_entry_lacks_is_found_by_what_it_changes(tmp_path: Path) -> None:
    published = {**json.loads(ENTRIES[QWEN].config_json), "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    assert compare_with(tmp_path, QWEN, published).endswith(
        "differ: {}, planned otherwise: ['native_max_model_len', 'longest_max_model_len', 'rope_elements', 'weights']\n"
    )


def test_a_table_counts_for_the_facts_that_it_states(tmp_path: Path) -> None:
    table = {"hidden_size": 3584, "num_hidden_layers": 29, "unheard_of": 1}
    assert compare_with(tmp_path, QWEN, table) == (
        f"{QWEN}: 1 facts, differ: {{'num_hidden_layers': (28, 29)}}, planned otherwise: []\n"
    )


def test_a_flat_table_is_of_the_text_part(tmp_path: Path) -> None:
    assert compare_with(tmp_path, "google/gemma-3-4b-it", {"hidden_size": 2560, "vocab_size": 1}) == (
        "google/gemma-3-4b-it: 1 facts, differ: {'text_config.vocab_size': (262208, 1)}, planned otherwise: []\n"
    )


def test_an_unlisted_model_is_said_to_be_so(tmp_path: Path) -> None:
    assert compare_with(tmp_path, "someone/else", {}) == "someone/else: not in the catalogue\n"


def test_comparisons_add_up_and_a_whole_one_replaces_them() -> None:
    script = runpy.run_path(str(SCRIPT))
    row: dict[str, Any] = {"config": {"hidden_size": 1, "vocab_size": 2}}
    for source, agree in (("a", ["hidden_size"]), ("b", ["vocab_size"]), ("c", ["hidden_size"])):
        script["note"](row, source, script["Result"](agree, {}, []))
    assert row["compared"]["with"] == ["a", "b"]
    assert row["compared"]["facts"] == ["hidden_size", "vocab_size"]
    for source in ("d", "e", "e"):
        script["note"](row, source, script["Result"](None, {}, []))
    script["note"](row, "f", script["Result"](["hidden_size"], {}, []))
    assert row["compared"] == {"with": ["d", "e"], "digest": digest(row["config"], None)}
