"""Which tool-call parser, template and flags each family of models needs, and which families call no tools.

Source: vLLM's page on tool calling (docs/features/tool_calling.md, 0.33: models, parsers, templates), the
parsers themselves (vllm/tool_parsers), and the spans of releases that have each parser (this project's data).
"""

# ruff: noqa: RUF001 - DeepSeek's tokens have full-width bars
from pathlib import Path

from msgspec import Struct

from vllm_doctor import tool_parsers
from vllm_doctor.finding import LaunchEdit

# Templates of vLLM's `examples/` folder: in the images below /vllm-workspace, else in the source of the release.
TEMPLATES = "examples/"


class Family(Struct, frozen=True, kw_only=True):
    """A family: the parts of a lower-case model name that mark it, its parsers (the newest first), its template.

    `template` is one of vLLM's `examples/`, where the model's own does not do; `reasoning` the parser of its thoughts.
    """

    name: str
    marks: tuple[str, ...]
    parsers: tuple[str, ...]
    template: str | None = None
    reasoning: str | None = None
    without: tuple[str, ...] = ()


def _family(
    name: str,
    marks: str,
    parsers: str,
    template: str | None = None,
    reasoning: str | None = None,
    without: str = "",
) -> Family:
    return Family(
        name=name,
        marks=tuple(marks.split()),
        parsers=tuple(parsers.split()),
        template=None if template is None else f"{TEMPLATES}tool_chat_template_{template}.jinja",
        reasoning=reasoning,
        without=tuple(without.split()),
    )


_OLD_MISTRAL = "mixtral-8x7b mistral-7b-v0 mistral-7b-instruct-v0.1 mistral-7b-instruct-v0.2"
_MISTRAL = "mistral ministral mixtral devstral magistral codestral"
_LLAMA_3 = "llama-3.1 llama-3.2 llama-3.3 llama3.1 llama3.2 llama3.3"

# The first that fits counts, so the special ones stand before the general ones.
FAMILIES: tuple[Family, ...] = (
    _family("xLAM (Llama)", "llama-xlam", "xlam", "xlam_llama"),
    _family("xLAM (Qwen)", "xlam", "xlam", "xlam_qwen"),
    _family("ToolACE", "toolace", "pythonic", "toolace"),
    _family("FunctionGemma", "functiongemma", "functiongemma", "functiongemma"),
    _family("Gemma 4", "gemma-4 gemma4", "gemma4", None, "gemma4"),
    _family("Hermes", "hermes-2-pro hermes-2-theta hermes-3 hermes-4", "hermes"),
    _family("DeepSeek R1 distilled", "deepseek-r1-distill", "", None, "deepseek_r1"),
    _family("DeepSeek V4", "deepseek-v4", "deepseek_v4", None, "deepseek_v4"),
    _family("DeepSeek V3.2", "deepseek-v3.2", "deepseek_v32", None, "deepseek_v3"),
    _family("DeepSeek V3.1", "deepseek-v3.1", "deepseek_v31", "deepseekv31", "deepseek_v3"),
    _family("DeepSeek R1", "deepseek-r1", "deepseek_v3", "deepseekr1", "deepseek_r1"),
    _family("DeepSeek V3", "deepseek-v3", "deepseek_v3", "deepseekv3"),
    _family("Qwen3-Coder", "qwen3-coder qwen3coder", "qwen3_xml qwen3_coder"),
    _family("Qwen3.5 and later", "qwen3.5 qwen3.6 qwen3-next-coder", "qwen3_coder", None, "qwen3"),
    _family("Qwen3", "qwen3", "hermes", None, "qwen3"),
    _family("Qwen2.5, QwQ", "qwen2.5 qwen2_5 qwq", "hermes", without="qwen2.5-math"),
    _family("Llama 4", "llama-4 llama4", "llama4_pythonic pythonic", "llama4_pythonic"),
    _family("Llama 3.2 (1B, 3B)", "llama-3.2-1b llama-3.2-3b", "llama3_json pythonic", "llama3.2_json"),
    _family("Llama 3.1 to 3.3", _LLAMA_3, "llama3_json", "llama3.1_json"),
    _family("Mistral", _MISTRAL, "mistral", without=_OLD_MISTRAL),
    _family("Granite 20B function calling", "granite-20b-functioncalling", "granite-20b-fc", "granite_20b_fc"),
    _family("Granite 4", "granite-4", "granite4 hermes"),
    _family("Granite 3.0", "granite-3.0", "granite", "granite"),
    _family("Granite 3.1 and later", "granite-3", "granite", None, "granite"),
    _family("InternLM 2.5", "internlm2_5 internlm2.5", "internlm", "internlm2_tool"),
    _family("Jamba 1.5", "jamba", "jamba"),
    _family("gpt-oss", "gpt-oss", "openai", None, "openai_gptoss"),
    _family("Kimi K3", "kimi-k3", "kimi_k3"),
    _family("Kimi K2", "kimi-k2", "kimi_k2", None, "kimi_k2"),
    _family("Hunyuan A13B", "hunyuan-a13b", "hunyuan_a13b", None, "hunyuan_a13b"),
    _family("Command A Reasoning", "command-a-reasoning", "cohere_command3", None, "cohere_command3"),
    _family("LongCat", "longcat-flash", "longcat"),
    _family("GLM-4.7", "glm-4.7 glm4.7", "glm47", None, "glm45"),
    _family("GLM-4.5, 4.6", "glm-4.5 glm-4.6 glm4.5 glm4.6", "glm45", None, "glm45"),
    _family("Olmo 3", "olmo-3", "olmo3", None, "olmo3"),
    _family("GigaChat 3", "gigachat3", "gigachat3"),
    _family("Apertus", "apertus", "apertus", "apertus"),
    _family("MiniMax M3", "minimax-m3", "minimax_m3"),
    _family("MiniMax M2", "minimax-m2", "minimax_m2", None, "minimax_m2"),
    _family("Step 3.5", "step-3.5 step3p5", "step3p5", None, "step3p5"),
    _family("Step 3", "step3", "step3", None, "step3"),
    _family("Phi-4-mini", "phi-4-mini", "phi4_mini_json", "phi4_mini"),
    _family("Seed-OSS", "seed-oss", "seed_oss", None, "seed_oss"),
    _family("ERNIE 4.5", "ernie-4.5", "ernie45", None, "ernie45"),
    _family("LFM2", "lfm2", "lfm2"),
    _family("MiMo", "mimo", "mimo"),
)

# Families whose templates and training know no tools: no parser makes them call any (the models' cards; none of them
# stands on vLLM's page).
WITHOUT_TOOLS: tuple[str, ...] = (
    "gemma-2", "gemma-3", "gemma-7b", "gemma-2b", "llama-2", "llama2", "llama-3-8b", "llama-3-70b", "meta-llama-3-",
    "tinyllama", "vicuna", "zephyr", "falcon-7b", "falcon-40b", "phi-2", "phi-3-mini", "phi-3-medium", "phi-3.5",
    "mistral-7b-v0", "mistral-7b-instruct-v0.1", "mistral-7b-instruct-v0.2", "mixtral-8x7b", "gpt2", "gpt-j",
    "gpt-neo",
    "opt-", "bloom", "mpt-", "pythia", "stablelm", "yi-6b", "yi-34b", "baichuan", "deepseek-r1-distill",
    "deepseek-math",
    "qwen2.5-math",
)  # fmt: skip

# What a call looks like as text in the answer, and the parsers that read it (the patterns in vllm/tool_parsers, 0.32).
# Several marks must all be there; the first row that fits counts. Marks that are special tokens may be missing from the
# text, because the server leaves special tokens out.
CONTENT_MARKS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("<minimax:tool_call>",), ("minimax_m2",)),
    (("<seed:tool_call>",), ("seed_oss",)),
    (("<longcat_tool_call>",), ("longcat",)),
    (("<start_function_call>",), ("functiongemma",)),
    (("<|tool_calls_section_begin|>",), ("kimi_k2",)),
    (("<|tool_call_start|>",), ("lfm2",)),
    (("<|action_start|>",), ("internlm",)),
    (("<｜tool▁calls▁begin｜>", "```json"), ("deepseek_v3",)),
    (("<｜tool▁calls▁begin｜>",), ("deepseek_v31",)),
    (("<｜DSML｜",), ("deepseek_v32",)),
    (("<function_calls>",), ("olmo3",)),
    (("<arg_key>", "<arg_value>"), ("glm45", "glm47")),
    (("<function=", "<parameter="), ("qwen3_xml", "qwen3_coder")),
    (("[TOOL_CALLS]",), ("mistral",)),
    (("<|python_tag|>",), ("llama3_json",)),
    (("functools[",), ("phi4_mini_json",)),
    (("<tool_calls>",), ("jamba",)),
    (("<|tool_call|>",), ("granite",)),
    (("<function_call>",), ("granite-20b-fc",)),
    (("<|channel|>commentary",), ("openai",)),
    (("<tool_call>", '"name"'), ("hermes",)),
)  # fmt: skip

# A call without any mark: JSON with these keys, as Llama 3 writes it, or a list of Python calls.
_JSON_ARGUMENTS = {'"parameters"': ("llama3_json",), '"arguments"': ("hermes", "mistral", "llama3_json")}

MAXIMUM_CONTENT_CHARACTERS = 20_000
MAXIMUM_TEMPLATE_BYTES = 2**20


def family(*names: str | None) -> Family | None:
    """The family of a model, by its served name, its root or its path; None where no name says."""
    for name in names:
        plain = (name or "").lower().replace(" ", "-")
        for each in FAMILIES:
            if any(mark in plain for mark in each.marks):
                return each if not any(mark in plain for mark in each.without) and each.parsers else None
    return None


def without_tools(*names: str | None) -> bool:
    """Whether the model is of a family that is taught no tools."""
    plain = [(name or "").lower() for name in names]
    return family(*names) is None and any(mark in name for name in plain for mark in WITHOUT_TOOLS)


def written(content: str, function: str) -> tuple[str, ...]:
    """The parsers that read the call of `function` in this text, the usual one first; none where there is no call."""
    text = content[:MAXIMUM_CONTENT_CHARACTERS]
    for marks, parsers in CONTENT_MARKS:
        if all(mark in text for mark in marks):
            return parsers
    if f'"{function}"' in text and '"name"' in text:
        for key, parsers in _JSON_ARGUMENTS.items():
            if key in text:
                return parsers
    return ("pythonic", "llama4_pythonic") if f"[{function}(" in text else ()


def taught(folder: str | None) -> tuple[str, ...]:
    """The parsers that read what the template of a model folder on this machine writes; none where it is not here."""
    path = Path(folder or "")
    if not path.is_absolute():
        return ()
    text = "".join(_start(path / name) for name in ("chat_template.jinja", "tokenizer_config.json"))
    # In tokenizer_config.json the template is a JSON string: its quotes are escaped.
    return tool_parsers.writes(text.replace('\\"', '"')) if "tools" in text else ()


def _start(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAXIMUM_TEMPLATE_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def in_release(parser: str, version: str | None) -> bool:
    """Whether that release of vLLM has the parser; True where the release is not known to the data."""
    from packaging.version import InvalidVersion, Version

    from vllm_doctor import releases

    spans = releases.tool_parser_history(parser)
    try:
        asked = Version(version or "")
    except InvalidVersion:
        return bool(spans)
    return any(Version(s.first) <= asked and (s.last is None or asked <= Version(s.last)) for s in spans)


def first_release(parser: str) -> str | None:
    """The first release that has the parser."""
    from vllm_doctor import releases

    spans = releases.tool_parser_history(parser)
    return spans[0].first if spans else None


def launch_edit(parser: str, template: str | None = None) -> LaunchEdit:
    """The flags that switch tool calls on with this parser."""
    flags: dict[str, str | None] = {"--enable-auto-tool-choice": None, "--tool-call-parser": parser}
    if template is not None:
        flags["--chat-template"] = template
    return LaunchEdit(set=flags)
