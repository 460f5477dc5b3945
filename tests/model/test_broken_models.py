"""Broken folders from end to end: the real probe, every check on models, and exactly one cause."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import vllm_doctor_checks.lora
import vllm_doctor_checks.model
import vllm_doctor_checks.model_limits
import vllm_doctor_checks.model_quantization
import vllm_doctor_checks.model_support
import vllm_doctor_checks.model_weights
from tests.model import folders
from vllm_doctor import redact
from vllm_doctor.check import Check
from vllm_doctor.diagnose import Diagnosis, diagnose
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.model import probe_model
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot

MODULES = (
    vllm_doctor_checks.lora,
    vllm_doctor_checks.model,
    vllm_doctor_checks.model_limits,
    vllm_doctor_checks.model_quantization,
    vllm_doctor_checks.model_support,
    vllm_doctor_checks.model_weights,
)
CHECKS = tuple(value for module in MODULES for value in vars(module).values() if isinstance(value, Check))
FIXTURE = Path(__file__).parents[2] / "fixtures" / "snapshots" / "healthy-h100.json"


def diagnosed(line: str, base: Path) -> Diagnosis:
    launch = parse_line(line, folder=base)
    model = probe_model(launch.model or "", launch=launch, variables={"HF_HOME": str(base)}, folder=base)
    document = msgspec.json.decode(FIXTURE.read_bytes())
    document |= {"launch": msgspec.to_builtins(launch), "model": msgspec.to_builtins(model)}
    return diagnose(redact.clean(msgspec.convert(document, Snapshot)), Registry(CHECKS))


def causes(line: str, base: Path) -> list[tuple[str, str]]:
    diagnosis = diagnosed(line, base)
    assert not [c for c in diagnosis.checks if c.status.value == "crashed"], diagnosis.checks
    return [(f.severity.value, f.cause) for f in diagnosis.findings]


def quantized(method: str) -> dict[str, object]:
    return {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 128}}


OWN_CODE = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"}
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda m: (m / "config.json").unlink(), "model-files-incomplete"),
    "config cut off": (lambda m: (m / "config.json").write_text('{"architectures": ['), "model-files-incomplete"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "model-files-incomplete"),
    "pointer": (lambda m: (m / "model.safetensors").write_bytes(folders.POINTER), "model-files-incomplete"),
    "tokenizer pointer": (lambda m: (m / "tokenizer.json").write_bytes(folders.POINTER), "model-files-incomplete"),
    "no tokenizer": (lambda m: delete(m, "*token*"), "model-files-incomplete"),
    "layer": (lambda m: without(m, ".layers.1."), "model-files-incomplete"),
    "half a layer": (lambda m: without(m, ".layers.1.self_attn"), "model-files-incomplete"),
    "hidden size": (lambda m: folders.llama(m, hidden_size=24), "model-files-incomplete"),
    "vocabulary": (lambda m: folders.llama(m, vocab_size=99), "model-files-incomplete"),
    "heads": (lambda m: folders.llama(m, num_key_value_heads=3), "model-files-incomplete"),
    "architecture": (lambda m: folders.llama(m, architectures=["XForCausalLM"]), "model-arch-unsupported"),
    "type": (lambda m: folders.llama(m, architectures=["X"], model_type="x"), "model-arch-unsupported"),
    "rope": (lambda m: folders.llama(m, rope_scaling={"type": "spiral", "factor": 2}), "model-arch-unsupported"),
    "own code": (
        lambda m: folders.llama(m, architectures=["XForCausalLM"], model_type="x", auto_map=OWN_CODE),
        "trust-remote-code",
    ),
    "zip4": (lambda m: folders.llama(m, **quantized("zip4")), "quantization-unsupported"),
    "gptq": (lambda m: folders.llama(m, **quantized("gptq")), "quantization-unsupported"),
    "awq": (lambda m: folders.llama(m, **quantized("awq")), "quantization-unsupported"),
    "fp8": (lambda m: folders.llama(m, **quantized("fp8")), "quantization-unsupported"),
}


def delete(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


def without(folder: Path, part: str) -> None:
    shapes = {name: shape for name, shape in folders.llama_shapes().items() if part not in name}
    folders.write_safetensors(folder / "model.safetensors", shapes)


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_model_has_one_cause(name: str, tmp_path: Path) -> None:
    change, cause = BROKEN[name]
    change(folders.llama(tmp_path / "m"))
    assert causes("vllm serve m", tmp_path) == [("error", cause)]


def test_whole_models_are_quiet(tmp_path: Path) -> None:
    folders.llama(tmp_path / "m")
    folders.sharded(tmp_path / "s")
    folders.adapter(tmp_path / "a")
    lines = (
        "vllm serve m",
        "vllm serve s --max-model-len 256",
        "vllm serve m --quantization fp8",
        "vllm serve m --enable-lora --lora-modules a=a",
    )
    for line in lines:
        diagnosis = diagnosed(line, tmp_path)
        assert diagnosis.findings == ()
        assert {c.status.value for c in diagnosis.checks} <= {"passed", "skipped"}, diagnosis.checks


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("vllm serve m --max-model-len 257", "max-len-over-model"),
        ("vllm serve m --quantization awq", "quantization-unsupported"),
        ("vllm serve a", "model-files-incomplete"),
        ("vllm serve ./x", "model-not-found"),
        ("vllm serve models/m", "model-not-found"),
        ("HF_HUB_OFFLINE=1 vllm serve acme/m", "hub-unreachable"),
        ("vllm serve m --enable-lora --lora-modules a=a --max-lora-rank 4", "lora-config"),
        ("vllm serve m --enable-lora --lora-modules a=./nope", "lora-config"),
    ],
)
def test_launches_that_do_not_fit_the_model(line: str, cause: str, tmp_path: Path) -> None:
    folders.llama(tmp_path / "m")
    folders.adapter(tmp_path / "a")
    variables = "HF_HUB_OFFLINE=1" in line
    found = causes(line, tmp_path) if not variables else causes_offline(line, tmp_path)
    assert found == [("error", cause)]


def causes_offline(line: str, base: Path) -> list[tuple[str, str]]:
    """As `causes`, with the variables of the command line in the environment, as the collector puts them there."""
    launch = parse_line(line, folder=base)
    model = probe_model(launch.model or "", launch=launch, variables={"HF_HOME": str(base), **launch.environment})
    document = msgspec.json.decode(FIXTURE.read_bytes())
    document |= {"launch": msgspec.to_builtins(launch), "model": msgspec.to_builtins(model)}
    diagnosis = diagnose(msgspec.convert(document, Snapshot), Registry(CHECKS))
    return [(f.severity.value, f.cause) for f in diagnosis.findings]
