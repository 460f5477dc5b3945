"""LoRA adapters as `--lora-modules` names them."""

from pathlib import Path

import pytest

from tests.model import folders
from vllm_doctor.facts import LoraAdapter
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.model import probe_model


def adapters(tmp_path: Path, words: str) -> tuple[LoraAdapter, ...]:
    folder = folders.llama(tmp_path / "m")
    launch = parse_line(f"vllm serve {folder} --enable-lora --lora-modules {words}")
    return probe_model(str(folder), launch=launch, folder=tmp_path).lora_adapters


def test_words_and_json(tmp_path: Path) -> None:
    folders.adapter(tmp_path / "a")
    folders.adapter(tmp_path / "b", 64, ("k_proj",), rank_pattern={"up_proj": 128})
    first, second = adapters(tmp_path, """a=a '{"name": "b", "path": "b", "base_model_name": "x"}'""")
    assert (first.name, first.rank, first.tensor_modules, first.problem) == ("a", 8, ("q_proj", "v_proj"), None)
    assert (second.name, second.rank, second.tensor_modules) == ("b", 128, ("k_proj",))


def test_an_id_of_the_hub_is_only_listed(tmp_path: Path) -> None:
    (found,) = adapters(tmp_path, "sql=acme/sql-lora")
    assert found == LoraAdapter(name="sql", path="acme/sql-lora")


@pytest.mark.parametrize(
    ("changes", "unsupported"),
    [
        ({"use_dora": True}, ("DoRA",)),
        ({"bias": "all"}, ("bias=all",)),
        ({"init_lora_weights": "pissa"}, ("init_lora_weights=pissa",)),
        ({"init_lora_weights": "gaussian", "use_dora": False, "bias": "none"}, ()),
        ({"modules_to_save": ["lm_head"]}, ("modules_to_save=lm_head",)),
        ({"modules_to_save": ["score"]}, ()),
        ({"modules_to_save": None, "target_modules": "all-linear"}, ()),
    ],
)
def test_features_that_vllm_refuses(changes: dict[str, object], unsupported: tuple[str, ...], tmp_path: Path) -> None:
    folders.adapter(tmp_path / "a", **changes)  # type: ignore[arg-type]
    (found,) = adapters(tmp_path, "a=a")
    assert found.unsupported == unsupported


def test_what_an_adapter_lacks(tmp_path: Path) -> None:
    folder = folders.adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    (found,) = adapters(tmp_path, "a=a")
    assert found.problem is not None
    assert found.problem.file == "adapter_model.safetensors"
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (found,) = adapters(tmp_path, "a=a")
    assert found.problem is not None
    assert "lora_alpha, target_modules" in found.problem.detail
    (folder / "adapter_config.json").unlink()
    (found,) = adapters(tmp_path, "a=a")
    assert found.problem is not None
    assert found.problem.kind == "missing"
    (found,) = adapters(tmp_path, "a=./nope")
    assert found.problem is not None
