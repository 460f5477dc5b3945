"""The probe over real folders: what a whole model shows, and what each broken one records."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model import folders
from vllm_doctor.facts import ChatTemplate, Model, ModelConfig, ModelSource, Unknown
from vllm_doctor.probes.model import probe_model


def problems(model: Model) -> list[tuple[str, str]]:
    return [(p.kind, p.file) for p in model.problems]


def test_a_whole_model(tmp_path: Path) -> None:
    model = probe_model(str(folders.llama(tmp_path / "m")))
    config = model.config
    assert isinstance(config, ModelConfig)
    assert (model.source, model.problems, model.path) == (ModelSource.FOLDER, (), str(tmp_path / "m"))
    assert (config.architectures, config.model_type, config.dtype) == (("LlamaForCausalLM",), "llama", "bfloat16")
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 4)
    assert config.whole()["vocab_size"] == folders.VOCABULARY
    assert model.tokenizer_files == ("tokenizer.json", "tokenizer_config.json")
    assert model.vocabulary_markers == ("</tool_call>", "<tool_call>", "<|im_end|>", "<|im_start|>")
    assert model.tensor_shapes == folders.llama_shapes()
    assert model.tensor_names == tuple(sorted(folders.llama_shapes()))
    weights = model.weight_files[0]
    assert (weights.name, weights.format, weights.tensors) == ("model.safetensors", "safetensors", 21)
    assert weights.dtypes == {"BF16": weights.parameters}
    assert weights.size_bytes == (tmp_path / "m" / "model.safetensors").stat().st_size


def test_a_relative_name_starts_in_the_given_folder(tmp_path: Path) -> None:
    folders.llama(tmp_path / "models" / "m")
    assert probe_model("models/m", folder=tmp_path).source is ModelSource.FOLDER
    assert probe_model("~/models/m", variables={"HOME": str(tmp_path)}).source is ModelSource.FOLDER
    assert probe_model("models/m", folder=tmp_path / "models").source is ModelSource.NOWHERE


def test_a_path_that_is_not_there_names_its_neighbours(tmp_path: Path) -> None:
    folders.llama(tmp_path / "tiny-llama")
    model = probe_model(str(tmp_path / "tiny-lama"))
    assert problems(model) == [("not-found", str(tmp_path / "tiny-lama"))]
    assert model.suggestions == (str(tmp_path / "tiny-llama"),)


@pytest.mark.parametrize(
    "name", ["./nope", "../nope", "/nope", "~/nope", "a/b/c", "a b", "x" * 300, "a--b", "x.git", "a\0b"]
)
def test_names_that_can_be_no_id_are_paths(name: str, tmp_path: Path) -> None:
    model = probe_model(name, folder=tmp_path, variables={"HOME": str(tmp_path)})
    assert problems(model) == [("not-found", name)]


@pytest.mark.parametrize("name", ["s3://bucket/m", "gs://bucket/m", "hf://acme/m"])
def test_object_stores_are_not_read(name: str) -> None:
    model = probe_model(name)
    assert (model.problems, model.source) == ((), ModelSource.NOWHERE)
    assert isinstance(model.config, Unknown)


@pytest.mark.parametrize(
    "page",
    ["https://huggingface.co/acme/m", "huggingface.co/acme/m", "https://hf.co/acme/m/tree/main", "hf.co/acme/m?x=1"],
)
def test_the_address_of_a_page_of_the_hub_is_no_model_and_names_one(page: str) -> None:
    model = probe_model(page)
    assert (problems(model), model.suggestions) == ([("not-found", page)], ("acme/m",))


BREAKS: dict[str, tuple[Callable[[Path], object], tuple[str, str]]] = {
    "missing config": (lambda m: (m / "config.json").unlink(), ("missing", "config.json")),
    "config cut off": (lambda m: cut(m / "config.json", 100), ("not-json", "config.json")),
    "config empty": (lambda m: (m / "config.json").write_text(" \n"), ("empty", "config.json")),
    "config a list": (lambda m: (m / "config.json").write_text("[1]"), ("not-json", "config.json")),
    "config a pointer": (lambda m: (m / "config.json").write_bytes(folders.POINTER), ("lfs-pointer", "config.json")),
    "weights missing": (lambda m: (m / "model.safetensors").unlink(), ("missing", "*.safetensors")),
    "weights cut off": (lambda m: cut(m / "model.safetensors", 3000), ("truncated", "model.safetensors")),
    "weights cut in the header": (lambda m: cut(m / "model.safetensors", 100), ("truncated", "model.safetensors")),
    "weights of 4 bytes": (lambda m: cut(m / "model.safetensors", 4), ("truncated", "model.safetensors")),
    "weights empty": (lambda m: cut(m / "model.safetensors", 0), ("empty", "model.safetensors")),
    "weights too long": (lambda m: append(m / "model.safetensors", b"x"), ("bad-header", "model.safetensors")),
    "weights a pointer": (
        lambda m: (m / "model.safetensors").write_bytes(folders.POINTER),
        ("lfs-pointer", "model.safetensors"),
    ),
    "weights a web page": (
        lambda m: (m / "model.safetensors").write_bytes(b"<!doctype html>" * 100),
        ("bad-header", "model.safetensors"),
    ),
    "tokenizer a pointer": (
        lambda m: (m / "tokenizer.json").write_bytes(folders.POINTER),
        ("lfs-pointer", "tokenizer.json"),
    ),
    "tokenizer a web page": (lambda m: (m / "tokenizer.json").write_text("<html>"), ("not-json", "tokenizer.json")),
    "tokenizer cut off": (lambda m: cut(m / "tokenizer.json", 150), ("truncated", "tokenizer.json")),
    "tokenizer config cut off": (lambda m: cut(m / "tokenizer_config.json", 20), ("not-json", "tokenizer_config.json")),
    "generation config cut off": (
        lambda m: cut(m / "generation_config.json", 5),
        ("not-json", "generation_config.json"),
    ),
}


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


@pytest.mark.parametrize("name", BREAKS)
def test_each_broken_file_is_recorded(name: str, tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    change, expected = BREAKS[name]
    change(folder)
    model = probe_model(str(folder))
    assert problems(model) == [expected]
    if expected[1].endswith(".safetensors"):
        assert (model.tensor_names, model.tensor_shapes) == (None, None)


def test_shards_and_their_index(tmp_path: Path) -> None:
    folder = folders.sharded(tmp_path / "m")
    whole = probe_model(str(folder))
    assert (whole.problems, len(whole.weight_files)) == ((), 2)
    assert whole.tensor_shapes == folders.llama_shapes()
    (folder / "model-00002-of-00002.safetensors").unlink()
    gone = probe_model(str(folder))
    assert problems(gone) == [("index-names-missing-file", "model-00002-of-00002.safetensors")]
    assert gone.tensor_names is None


def test_a_tensor_that_only_the_index_has(tmp_path: Path) -> None:
    folder = folders.sharded(tmp_path / "m")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = "model-00001-of-00002.safetensors"
    folders.write_json(folder / "model.safetensors.index.json", index)
    model = probe_model(str(folder))
    assert problems(model) == [("index-names-missing-tensor", "model.safetensors.index.json")]
    assert "model.layers.9.mlp.up_proj.weight" in model.problems[0].detail


def test_files_beside_the_index_and_other_copies_are_not_loaded(tmp_path: Path) -> None:
    folder = folders.sharded(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "consolidated.safetensors").write_bytes(b"")
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "gone.bin"}}')
    (folder / "optimizer.pt").write_bytes(b"")
    assert probe_model(str(folder)).problems == ()


def test_pytorch_weights_are_only_measured(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.")
    model = probe_model(str(folder))
    assert model.problems == ()
    assert [(w.name, w.format, w.tensors) for w in model.weight_files] == [("pytorch_model.bin", "pytorch", None)]
    assert model.tensor_names is None


def test_a_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "q4.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + bytes(100))
    assert probe_model(str(path)).problems == ()
    path.write_bytes(b"nothing of the kind")
    assert problems(probe_model(str(path))) == [("bad-header", "q4.gguf")]


def test_mistral_format_without_config(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    (folder / "config.json").rename(folder / "params.json")
    model = probe_model(str(folder))
    assert model.problems == ()
    assert isinstance(model.config, Unknown)


def test_an_adapter_folder(tmp_path: Path) -> None:
    model = probe_model(str(folders.adapter(tmp_path / "lora")))
    assert model.is_lora_adapter
    assert model.adapter is not None
    assert (model.adapter.rank, model.adapter.base_model) == (8, "acme/llama")


def test_a_text_config_within(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    inner = {k: v for k, v in folders.CONFIG.items() if k != "architectures"}
    outer = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "vision_config": {"hidden_size": 7},
    }
    folders.write_json(folder / "config.json", {**outer, "text_config": inner})
    config = probe_model(str(folder)).config
    assert isinstance(config, ModelConfig)
    assert (config.hidden_size, config.model_type, config.text_model_type) == (folders.HIDDEN, "llava", "llama")
    assert config.is_multimodal
    assert config.text()["vocab_size"] == folders.VOCABULARY


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({"quantization_config": {"quant_method": "GPTQ"}}, "gptq"),
        ({"quantization_config": {"quant_method": "compressed_tensors"}}, "compressed-tensors"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        (
            {"quantization_config": {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}},
            "modelopt_fp4",
        ),
        ({"quantization_config": {"bits": 4}}, None),
        ({"quantization_config": "awq"}, None),
    ],
)
def test_quantization_methods(changes: dict[str, object], method: str | None, tmp_path: Path) -> None:
    config = probe_model(str(folders.llama(tmp_path / "m", **changes))).config
    assert isinstance(config, ModelConfig)
    assert config.quantization_method == method


def test_many_experts_are_folded(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    experts = {f"model.layers.{i}.mlp.experts.{e}.up_proj.weight": (1,) for i in range(3) for e in range(2000)}
    folders.write_safetensors(folder / "model.safetensors", experts)
    model = probe_model(str(folder))
    assert model.tensor_names == tuple(f"model.layers.{i}.mlp.experts.0.up_proj.weight" for i in range(3))
    assert model.weight_files[0].tensors == 6000


def test_the_template_of_the_launch_counts(tmp_path: Path) -> None:
    from vllm_doctor.launch.parse import parse_line

    folder = folders.llama(tmp_path / "m")
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}")
    launch = parse_line(f"vllm serve {folder} --chat-template t.jinja")
    template = probe_model(str(folder), launch=launch, folder=tmp_path).chat_template
    assert isinstance(template, ChatTemplate)
    assert (template.source, template.uses_tools) == ("--chat-template t.jinja", False)
    gone = probe_model(str(folder), launch=launch, folder=tmp_path / "m").chat_template
    assert isinstance(gone, Unknown)


def test_hostile_folders_do_not_hold_the_probe_up(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).unlink()
    os.mkfifo(folder / "config.json")
    (folder / "tokenizer.json").symlink_to("/dev/zero")
    (folder / "model.safetensors").symlink_to(folder / "model.safetensors")
    (folder / "merges.txt").mkdir()
    model = probe_model(str(folder))
    kinds = {file: kind for kind, file in problems(model)}
    assert kinds["config.json"] == kinds["tokenizer.json"] == kinds["merges.txt"] == "unreadable"
    assert kinds["model.safetensors"] == "unreadable"


def test_a_link_to_itself_and_one_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert probe_model(str(tmp_path / "loop")).source is ModelSource.NOWHERE
    folder = folders.llama(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/gone")
    model = probe_model(str(folder))
    assert problems(model) == [("missing", "model.safetensors")]
    assert "../../blobs/gone" in model.problems[0].detail


def test_a_folder_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_doctor.probes.model.reading.MAXIMUM_ENTRIES", 50)
    folder = tmp_path / "m"
    folder.mkdir()
    folders.write_json(folder / "config.json", dict(folders.CONFIG))
    for number in range(200):
        (folder / f"{number}.txt").touch()
    model = probe_model(str(folder))
    assert ("missing", "*.safetensors") not in problems(model)
    assert model.tensor_names is None


def test_what_cannot_be_read_is_no_missing_file(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    folder = folders.llama(tmp_path / "m")
    (folder / "model.safetensors").chmod(0)
    assert problems(probe_model(str(folder))) == [("unreadable", "model.safetensors")]


def test_the_tokenizer_that_the_launch_names(tmp_path: Path) -> None:
    from vllm_doctor.launch.parse import parse_line

    def named(word: str) -> list[tuple[str, str]]:
        launch = parse_line(f"vllm serve {folder} --tokenizer {word}")
        return problems(probe_model(str(folder), launch=launch, folder=tmp_path))

    folder = folders.llama(tmp_path / "m")
    other = folders.llama(tmp_path / "other")
    assert named("other") == named("acme/llama") == []
    (other / "tokenizer.json").write_bytes(folders.POINTER)
    assert named("other") == [("lfs-pointer", "--tokenizer other")]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).unlink()
    assert named("other") == [("missing", "--tokenizer other")]
    assert named("./nope") == [("not-found", "--tokenizer ./nope")]
