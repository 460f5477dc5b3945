"""Checks of chat: the template that turns messages into a prompt, and the name that clients must write."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import ChatTemplate, Launch, Model, ModelConfig, Servers, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, info, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launch_values import is_pooling

# Models whose prompts vLLM renders in code, or for which it brings a template (vLLM 0.32
# `transformers_utils/chat_templates/registry.py`, `renderers/`, `tokenizers/registry.py`).
TEMPLATE_IN_VLLM = frozenset(
    {
        *("blip-2", "clip", "colpali", "deepseek_ocr", "deepseek_ocr2", "unlimited-ocr", "unlimited_ocr"),
        *("deepseek_vl_v2", "minicpmv", "minicpmv4_6", "minicpmv4_7", "paligemma", "siglip", "siglip2"),
        *("gpt_oss", "deepseek_v32", "deepseek_v4", "deepseek_v41", "grok2", "kimi_audio"),
    }
)

GENERATES = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")

# The templates that vLLM 0.32 finds by name alone.
BUILT_IN = frozenset(
    {
        *("template_basic.jinja", "template_blip2.jinja", "template_chatml.jinja", "template_deepseek_ocr.jinja"),
        *("template_deepseek_vl2.jinja", "template_kimi_audio.jinja", "template_minicpmv45.jinja"),
    }
)


@check("chat-template", causes=("chat-template-missing",), needs=("launch", "model"))
def chat_template(snapshot: Snapshot) -> Iterator[Finding]:
    """The model has no chat template, or the template that is named cannot be used.

    Why: /v1/chat/completions turns messages into a prompt by the model's chat template. Base models bring none: the
    server starts, and every chat request is answered 400 "default chat template is no longer allowed". A template
    with a syntax error does the same; a template file that is not there ends the start.
    Fix: serve the instruct or chat variant, name a template with `--chat-template FILE`, or use /v1/completions.
    """
    launch, model = snapshot.launch, snapshot.model
    assert isinstance(launch, Launch) and isinstance(model, Model)
    config = known(model.config)
    _require_chat(launch, config)
    template = model.chat_template
    if isinstance(template, Unknown):
        yield from _unread(launch, template)
        return
    if template is None:
        yield from _none(launch, model, config)
    elif template.error is not None:
        evidence = (f"template: {template.source}", f"Jinja says: {template.error}")
        fix = Fix(title=f"Mend the template ({template.source})")
        title = "The chat template has a syntax error: every chat request will be refused"
        yield error("chat-template-missing", title, evidence=evidence, fixes=(fix, *_own_template(launch)))


def _require_chat(launch: Launch, config: ModelConfig) -> None:
    pooling = is_pooling(launch)
    if pooling or (pooling is None and not any(a.endswith(GENERATES) for a in config.architectures)):
        raise NotApplicable("the server will not be asked to chat: the model or --runner is for pooling")


def _unread(launch: Launch, template: Unknown) -> Iterator[Finding]:
    """A template file that the launch names and that is not there ends the start; anything else is not known."""
    given = launch.value("--chat-template")
    if given is None or launch.docker is not None or given in BUILT_IN or not template.reason.endswith("not there"):
        raise NotKnown(template.reason)
    evidence = (template.reason,)
    fix = Fix(title="Name a template file that exists (relative paths start at the server's current folder)")
    title = f"The chat template {given} does not exist"
    yield error("chat-template-missing", title, evidence=evidence, fixes=(fix, *_own_template(launch)))


def _own_template(launch: Launch) -> tuple[Fix, ...]:
    if not launch.has("--chat-template"):
        return ()
    edit = LaunchEdit(unset=("--chat-template",))
    return (Fix(title="Drop --chat-template, if the model brings a template of its own", launch=edit),)


def _none(launch: Launch, model: Model, config: ModelConfig) -> Iterator[Finding]:
    if launch.has("--tokenizer") or launch.has("--tokenizer-mode"):
        raise NotKnown("the template may come with the tokenizer that the launch names, which was not read")
    if {config.model_type, config.text_model_type} & TEMPLATE_IN_VLLM:
        return
    if not model.tokenizer_files:
        raise NotKnown("the model's tokenizer files are not known, which may bring the template")
    yield warning(
        "chat-template-missing",
        f"{model.given} has no chat template: chat requests will be answered 400",
        evidence=(
            "no chat_template in tokenizer_config.json, no chat_template.jinja",
            "the launch names none with --chat-template",
        ),
        fixes=(
            Fix(title="Serve the instruct or chat variant of this model"),
            Fix(title="Name a template that fits the model: --chat-template FILE.jinja"),
            Fix(title="Or ask /v1/completions only, which needs no template"),
        ),
    )


@check("model-name", causes=("model-name-mismatch",), needs=("launch", "servers"))
def model_name(snapshot: Snapshot) -> Iterator[Finding]:
    """Clients will have to write another model name than one would think.

    Why: a request names its model, and vLLM compares the name letter by letter with `--served-model-name`, else with
    the model as the launch has it: `./models/x/` and `models/x` are two names. A name that is not served is answered
    404 "The model does not exist".
    Fix: give the model a plain name with `--served-model-name NAME`, and enter that name in the client.
    """
    launch, servers = snapshot.launch, snapshot.servers
    assert isinstance(launch, Launch) and isinstance(servers, Servers)
    names = served_names(launch)
    if not names:
        raise NotApplicable("the launch names no model")
    yield from _odd_name(launch, names[0])
    for answer in servers.answers:
        # A server that was only found here is another one than this launch is to be.
        if answer.failure is not None or answer.pid is not None:
            continue
        served = known(answer.models)
        if served and not set(names) & set(served):
            evidence = (f"the launch serves: {', '.join(names)}", f"{answer.url} serves: {', '.join(served)}")
            title = f"{answer.url} does not serve {names[0]}"
            fix = Fix(title="Enter the name that the server has", settings={"Model": served[0]})
            yield warning("model-name-mismatch", title, evidence=evidence, fixes=(fix,))


def served_names(launch: Launch) -> tuple[str, ...]:
    """The names that the server will answer to."""
    given = tuple(value for use in launch.uses("--served-model-name")[-1:] for value in use.values)
    return given or ((launch.model,) if launch.model else ())


def _odd_name(launch: Launch, name: str) -> Iterator[Finding]:
    if launch.has("--served-model-name") or not (name.startswith(("./", "../", "~")) or name.endswith("/")):
        return
    plain = name.rstrip("/").rsplit("/", 1)[-1]
    fixes = [Fix(title="Enter this name, letter by letter, in the client", settings={"Model": name})]
    if plain and not plain.startswith((".", "~")):
        edit = LaunchEdit(set={"--served-model-name": plain})
        fixes.insert(
            0, Fix(title="Give the model a plain name", launch=edit, settings={"Model": plain}, automatic=True)
        )
    yield info(
        "model-name-mismatch",
        f"Clients will have to call the model {name!r}",
        evidence=(f"the launch names the model {name!r} and no --served-model-name",),
        fixes=tuple(fixes),
    )


def template_of(model: Model) -> ChatTemplate | None:
    """The model's template; raises NotKnown where it could not be read."""
    return None if model.chat_template is None else known(model.chat_template)
