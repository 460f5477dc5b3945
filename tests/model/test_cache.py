"""The probe over the hub's cache: its layout, its variables, and what an offline launch cannot fetch."""

from pathlib import Path

import pytest

from tests.model import folders
from vllm_doctor.facts import Model, ModelSource, Unknown
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.model import probe_model
from vllm_doctor.probes.model.locating import cache_folder, is_repo_id
from vllm_doctor.probes.model.names import suggest_ids


def probe(name: str, line: str = "", **variables: str) -> Model:
    launch = parse_line(line or f"vllm serve {name}")
    return probe_model(name, launch=launch, variables=variables)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, "/c"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"}, "/old"),
        ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HOME": "/home/a"}, "/home/a/.cache/huggingface/hub"),
        ({"HOME": "/home/a", "HF_HOME": "~/hf"}, "/home/a/hf/hub"),
    ],
)
def test_where_the_cache_is(variables: dict[str, str], expected: str) -> None:
    assert str(cache_folder(variables)) == expected


def test_a_cached_model(tmp_path: Path) -> None:
    folders.llama(folders.cached(tmp_path, "acme/llama"))
    model = probe("acme/llama", HF_HUB_CACHE=str(tmp_path))
    assert (model.source, model.revision, model.problems) == (ModelSource.CACHE, "a" * 40, ())


def test_files_of_a_snapshot_are_links(tmp_path: Path) -> None:
    snapshot = folders.cached(tmp_path, "acme/llama")
    source = folders.llama(tmp_path / "files")
    for file in source.iterdir():
        blob = snapshot.parent.parent / "blobs" / file.name
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert probe("acme/llama", HF_HUB_CACHE=str(tmp_path)).problems == ()
    (snapshot.parent.parent / "blobs" / "model.safetensors").rename(snapshot.parent.parent / "blobs" / "x.incomplete")
    model = probe("acme/llama", HF_HUB_CACHE=str(tmp_path))
    assert {p.kind for p in model.problems} == {"missing", "incomplete-download"}


def test_revisions(tmp_path: Path) -> None:
    folders.llama(folders.cached(tmp_path, "acme/llama", "a" * 40))
    folders.llama(folders.cached(tmp_path, "acme/llama", "b" * 40, "v2"), max_position_embeddings=512)
    for revision, commit in (("v2", "b" * 40), ("b" * 40, "b" * 40), ("main", "a" * 40)):
        model = probe("acme/llama", f"vllm serve acme/llama --revision {revision}", HF_HUB_CACHE=str(tmp_path))
        assert model.revision == commit
    gone = probe("acme/llama", "vllm serve acme/llama --revision v3", HF_HUB_CACHE=str(tmp_path))
    assert gone.source is ModelSource.NOWHERE
    out = probe("acme/llama", "vllm serve acme/llama --revision ../../../x", HF_HUB_CACHE=str(tmp_path))
    assert out.source is ModelSource.NOWHERE


def test_download_dir_comes_first(tmp_path: Path) -> None:
    folders.write_json(folders.cached(tmp_path / "hub", "acme/llama") / "config.json", {})
    folders.llama(folders.cached(tmp_path / "weights", "acme/llama"))
    line = f"vllm serve acme/llama --download-dir {tmp_path / 'weights'}"
    model = probe("acme/llama", line, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert model.path is not None
    assert model.path.startswith(str(tmp_path / "weights"))


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_and_not_cached(variable: str, tmp_path: Path) -> None:
    model = probe("acme/llama", HF_HUB_CACHE=str(tmp_path), **{variable: "1"})
    assert [p.kind for p in model.problems] == ["not-cached"]
    assert model.hub_offline


def test_not_cached_and_nobody_asked(tmp_path: Path) -> None:
    model = probe("acme/llama", HF_HUB_CACHE=str(tmp_path))
    assert (model.source, model.problems, model.hub_offline) == (ModelSource.NOWHERE, (), False)
    assert isinstance(model.config, Unknown)


@pytest.mark.parametrize("name", ["gpt2", "acme/llama", "Qwen/Qwen2.5-7B-Instruct", "a/b_c.d-e", "a.b"])
def test_ids(name: str) -> None:
    assert is_repo_id(name)


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a/b/c", "-a/b", "a/b-", "a..b", "a--b", "a b", "a/b.git", "caf\u00e9/x", "x" * 97]
)
def test_no_ids(name: str) -> None:
    assert not is_repo_id(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Qwen2-7B-Instruct", "Qwen/Qwen2-7B-Instruct"),
        ("Mixtral-8x7B-Instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("Meta-Llama-3-70B", "meta-llama/Meta-Llama-3-70B"),
        ("meta/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Qwen/Qwen2.5-7B-Instuct", "Qwen/Qwen2.5-7B-Instruct"),
    ],
)
def test_what_a_name_was_meant_to_be(name: str, meant: str) -> None:
    assert suggest_ids(name)[0] == meant


@pytest.mark.parametrize("name", ["acme/private-model", "Qwen/Qwen2.5-9B-Instruct", "gpt2", "Qwen/Qwen3-8B"])
def test_no_guess_where_nothing_is_near(name: str) -> None:
    assert suggest_ids(name) == ()


def test_cached_repositories_are_suggested(tmp_path: Path) -> None:
    folders.cached(tmp_path, "acme/our-llama-tuned")
    assert probe("our-llama-tuned", HF_HUB_CACHE=str(tmp_path)).suggestions == ("acme/our-llama-tuned",)
