"""Variables, architectures, parsers, quantization methods and attention backends, in each form that releases had."""

from __future__ import annotations

from pathlib import Path

from tests.releases.trees import write_tree
from vllm_doctor.releases.extract import VariableFacts, extract

ENVS = """
import os
from typing import TYPE_CHECKING, Literal, Optional
if TYPE_CHECKING:
    VLLM_PORT: Optional[int] = None
    VLLM_FLAG: bool = False
    VLLM_LEVEL: str = "INFO"
    VLLM_METHOD: Literal["fork", "spawn"] = "fork"
environment_variables = {
    "VLLM_PORT": lambda: int(os.getenv('VLLM_PORT', '0')) if 'VLLM_PORT' in os.environ else None,
    "VLLM_FLAG": lambda: bool(int(os.getenv("VLLM_FLAG", "0"))),
    "VLLM_LEVEL": lambda: os.getenv("VLLM_LEVEL", "INFO"),
    "VLLM_METHOD": env_with_choices("VLLM_METHOD", "fork", ["fork", "spawn"]),
}
"""


def test_variables(tmp_path: Path) -> None:
    elsewhere = "import os\nx = os.environ.get('VLLM_HIDDEN', '')\ny = os.environ['VLLM_FLAG']\n"
    found = extract(write_tree(tmp_path, {"envs.py": ENVS, "utils.py": elsewhere})).variables
    assert list(found.values()) == [
        VariableFacts("VLLM_FLAG", "bool", default="False", converter="int"),
        VariableFacts("VLLM_HIDDEN", registered=False),
        VariableFacts("VLLM_LEVEL", default="INFO"),
        VariableFacts("VLLM_METHOD", choices=("fork", "spawn"), default="fork"),
        VariableFacts("VLLM_PORT", "int", converter="int"),
    ]


def test_architectures_and_their_removal(tmp_path: Path) -> None:
    registry = """
_TEXT = {"LlamaForCausalLM": ("llama", "LlamaForCausalLM")}
_VLLM_MODELS = {**_TEXT, "BertModel": ("bert", "BertModel")}
_PREVIOUSLY_SUPPORTED_MODELS = {"PhiForCausalLM": "0.9.2"}
"""
    found = extract(write_tree(tmp_path, {"model_executor/models/registry.py": registry}))
    assert found.architectures == {"LlamaForCausalLM", "BertModel"}
    assert found.removed_architectures == {"PhiForCausalLM": "0.9.2"}


def test_architectures_of_old_releases(tmp_path: Path) -> None:
    registry = (
        "_GENERATION = {'A': ('a', 'A')}\n_EMBEDDING = {'B': ('b', 'B')}\n_MODELS = dict(**_GENERATION, **_EMBEDDING)\n"
    )
    assert extract(write_tree(tmp_path, {"model_executor/models/__init__.py": registry})).architectures == {"A", "B"}


def test_parsers_by_decorator(tmp_path: Path) -> None:
    tools = """
@ToolParserManager.register_module("hermes")
class A: ...
@ToolParserManager.register_module(["x", "y"])
class B: ...
"""
    reasoning = '@ReasoningParserManager.register_module("deepseek_r1")\nclass A: ...\n'
    files = {"entrypoints/openai/tool_parsers/a.py": tools, "entrypoints/openai/reasoning_parsers/a.py": reasoning}
    found = extract(write_tree(tmp_path, files))
    assert (found.tool_parsers, found.reasoning_parsers) == (("hermes", "x", "y"), ("deepseek_r1",))


def test_parsers_by_table(tmp_path: Path) -> None:
    files = {
        "tool_parsers/__init__.py": '_TOOL_PARSERS_TO_REGISTER = {"hermes": ("a", "A")}',
        "reasoning/__init__.py": '_REASONING_PARSERS_TO_REGISTER = {"qwen3": ("a", "A")}',
    }
    found = extract(write_tree(tmp_path, files))
    assert (found.tool_parsers, found.reasoning_parsers) == (("hermes",), ("qwen3",))


QUANTIZATION = """
from typing import Literal, get_args
QuantizationMethods = Literal["fp8", "gptq", "inc"]
QUANTIZATION_METHODS = list(get_args(QuantizationMethods))

def get_quantization_config(quantization):
    if quantization not in QUANTIZATION_METHODS:
        raise ValueError
    from .fp8 import Fp8Config, GptqConfig
    if current_platform.is_rocm():
        other = None
    method_to_config = {"fp8": Fp8Config, "gptq": GptqConfig, "inc": Unheard}
    return method_to_config[quantization]
"""

FP8 = """
class Base:
    @classmethod
    def get_min_capability(cls) -> int:
        return 60

class GptqConfig(Base):
    pass

class Fp8Config(Base):
    @classmethod
    def get_min_capability(cls) -> int:
        return 89
"""


def test_quantization_with_inherited_capability(tmp_path: Path) -> None:
    folder = "model_executor/layers/quantization"
    found = extract(write_tree(tmp_path, {f"{folder}/__init__.py": QUANTIZATION, f"{folder}/fp8.py": FP8}))
    assert found.quantization == {"fp8": 89, "gptq": 60, "inc": None}


def test_attention_backends(tmp_path: Path) -> None:
    enum = "import enum\nclass _Backend(enum.Enum):\n    FLASH_ATTN = enum.auto()\n    XFORMERS = enum.auto()\n"
    assert extract(write_tree(tmp_path, {"attention/selector.py": enum})).attention_backends == (
        "FLASH_ATTN",
        "XFORMERS",
    )
