"""The check of tool calling: the flags, the parser against the model's own format, and the template."""

from collections.abc import Iterator

from vllm_doctor import tool_parsers
from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import ChatTemplate, Launch, Model, ModelSource, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launch_values import is_pooling, release_of

# Models whose prompts, tools included, vLLM renders in code.
RENDERED_IN_CODE = frozenset({"gpt_oss", "deepseek_v32", "deepseek_v4", "deepseek_v41", "kimi_k3"})


@check("tool-flags", causes=("tools-not-enabled", "tool-parser-wrong"), needs=("launch",))
def tool_flags(snapshot: Snapshot) -> Iterator[Finding]:
    """The flags for tool calls are not complete, or the parser does not fit the model.

    Why: tool calls need `--enable-auto-tool-choice` and a `--tool-call-parser` that reads the format this model
    writes. A wrong parser starts and leaves the calls as text in the answer; some parsers look their tokens up in the
    vocabulary and end the start where they are missing. A chat template that never reads `tools` keeps the functions
    from the model.
    Fix: set both flags, with the parser of the model's family, and a template that knows tools.
    """
    launch = snapshot.launch
    assert isinstance(launch, Launch)
    enabled, parser = launch.has("--enable-auto-tool-choice"), launch.value("--tool-call-parser")
    if parser is None:
        # With --enable-auto-tool-choice alone the server does not start: two flags that need each other, which the
        # checks of flags tell.
        raise NotApplicable("no --tool-call-parser is given")
    if is_pooling(launch):
        raise NotApplicable("a pooling server calls no tools")
    if not enabled:
        yield _not_enabled(parser)
    if launch.has("--tool-parser-plugin"):
        return
    model = snapshot.model
    if isinstance(model, Unknown) or model is None:
        raise NotKnown("the model is not known" if model is None else model.reason)
    refused = tuple(_missing_tokens(snapshot, launch, model, parser))
    yield from refused
    if not refused and enabled:
        yield from _template(model, parser)


def _not_enabled(parser: str) -> Finding:
    edit = LaunchEdit(set={"--enable-auto-tool-choice": None})
    return warning(
        "tools-not-enabled",
        "A tool parser is named, but tool calls are not switched on",
        evidence=(f"--tool-call-parser {parser} is given", "--enable-auto-tool-choice is not"),
        fixes=(Fix(title="Add --enable-auto-tool-choice", launch=edit, automatic=True),),
    )


def _fitting(snapshot: Snapshot) -> tuple[str, ...]:
    model = snapshot.model
    if not isinstance(model, Model) or not isinstance(model.chat_template, ChatTemplate):
        return ()
    release = release_of(snapshot)
    names = tool_parsers.writes(model.chat_template.text)
    return tuple(n for n in names if release is None or tool_parsers.exists(n, release))


def _missing_tokens(snapshot: Snapshot, launch: Launch, model: Model, parser: str) -> Iterator[Finding]:
    release = release_of(snapshot)
    tokens = tool_parsers.required_tokens(parser, release)
    if not tokens or launch.has("--tokenizer") or launch.has("--tokenizer-mode"):
        return
    if "tekken.json" in model.tokenizer_files and parser == "mistral":
        return
    if model.tokenizer_files and not {"tokenizer.json", "tekken.json"} & set(model.tokenizer_files):
        raise NotKnown("the tokens of this kind of tokenizer are not read")
    present = known(model.vocabulary_markers)
    missing = [token for token in tokens if token not in present]
    if not missing:
        return
    title = f"--tool-call-parser {parser} needs tokens that this model's tokenizer does not have"
    evidence = (f"missing: {' '.join(missing)}", f"{model.given}: special tokens found: {' '.join(present) or 'none'}")
    # Without the release or the whole tokenizer it is likely only: older releases look for no tokens, and on the hub
    # only those that tokenizer_config.json lists were seen.
    make = warning if release is None or model.source is ModelSource.HUB else error
    yield make("tool-parser-wrong", title, evidence=evidence, fixes=_parser_fixes(snapshot, parser))


def _parser_fixes(snapshot: Snapshot, wrong: str) -> tuple[Fix, ...]:
    names = [name for name in _fitting(snapshot) if name != wrong]
    if not names:
        return (Fix(title="Name the parser of the model's family with --tool-call-parser"),)
    edit = LaunchEdit(set={"--tool-call-parser": names[0]})
    return (Fix(title=f"Use the parser that reads this model's format: {names[0]}", launch=edit, automatic=True),)


def _template(model: Model, parser: str) -> Iterator[Finding]:
    config = known(model.config)
    if {config.model_type, config.text_model_type} & RENDERED_IN_CODE:
        return
    if model.chat_template is None:
        return  # the check `chat-template` says so
    template = known(model.chat_template)
    if template.error is not None:
        return
    if not template.uses_tools:
        yield warning(
            "tool-parser-wrong",
            "The chat template never reads the tools: the model will not learn of them",
            evidence=(f"template: {template.source}", "`tools` does not occur in it"),
            fixes=(Fix(title="Name a template that knows tools: --chat-template FILE (vLLM's examples/ has some)"),),
        )
        return
    writes = tool_parsers.writes(template.text)
    if not writes or parser in writes or parser not in tool_parsers.FORMATS:
        return
    edit = LaunchEdit(set={"--tool-call-parser": writes[0]})
    evidence = (
        f"the template ({template.source}) writes tool calls as {' or '.join(writes)} reads them",
        f"given: {parser}",
    )
    fix = Fix(title=f"Use --tool-call-parser {writes[0]}", launch=edit, automatic=True)
    title = f"--tool-call-parser {parser} does not read the tool calls that this model is taught to write"
    yield warning("tool-parser-wrong", title, evidence=evidence, fixes=(fix,))
