"""Checks on the model as a thing that must be found and whole: its name, its files, its tokenizer."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Launch, LoraAdapter, Model, ModelProblem, ModelSource
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.model_facts import downloads_missing, model_of

# First parts of paths on huggingface.co that are pages of the site, so that no organisation can have the name.
RESERVED = frozenset({"models", "datasets", "spaces", "docs", "api", "settings", "tasks", "blog", "join", "login"})
# First parts of relative paths that people mean as folders.
FOLDER_WORDS = RESERVED | {"model", "checkpoints", "checkpoint", "ckpt", "weights", "output", "outputs", "data", "llm"}

ABSENT = ("missing", "index-names-missing-file", "index-names-missing-tensor")
# The name under which the probe records that no weight file is there.
NO_WEIGHTS = "*.safetensors"
# How the names of problems with the folder of `--tokenizer` begin.
TOKENIZER_FLAG = "--tokenizer "
DOWNLOAD = "Download the files again"


@check("model-found", causes=("model-not-found", "model-access", "hub-unreachable"), needs=("model",))
def model_found(snapshot: Snapshot) -> Iterator[Finding]:
    """The model is not where its name says: no such folder, no such repository, no access to it, or no way to the hub.

    Why: vLLM takes a name that is a folder for a folder, and any other for a repository on the hub. A misspelt path
    therefore ends with complaints about repository ids or the network, and a name without its organisation with "not a
    valid model identifier". A gated repository answers 401 or 403 until its terms are accepted and a token is sent.
    Fix: write the path or the id as it is; accept the terms and set HF_TOKEN; or download the model first.
    """
    model = model_of(snapshot)
    if model.source is not ModelSource.NOWHERE:
        return
    if is_address(model.given):
        yield _address(model.given)
        return
    answers = [p for p in model.problems if p.kind in FINDERS and not p.file.startswith(TOKENIZER_FLAG)]
    nobody_said = not answers or answers[0].kind in ("unreachable", "not-cached")
    finding = _never_an_id(model) if nobody_said else None
    if finding is not None and (not answers or model.hub_endpoint is None):
        yield finding
    elif answers:
        yield FINDERS[answers[0].kind](model, answers[0])
    else:
        known(model.config)


def is_address(name: str) -> bool:
    """Whether the model is given as a web address; from `s3://`, `gs://` and `az://` vLLM can stream."""
    return name.startswith(("http://", "https://"))


def _address(address: str) -> Finding:
    """huggingface_hub refuses it: "Repo id must be in the form 'repo_name' or 'namespace/repo_name'"."""
    host, *parts = address.partition("://")[2].split("?")[0].strip("/").split("/")
    meant = "/".join(parts[:2]) if host.endswith(("huggingface.co", "hf.co", "hf-mirror.com")) else ""
    edit = LaunchEdit(positional=meant) if len(parts) >= 2 and meant else None
    title = f"Serve {meant}" if edit else "Name the repository as ORGANISATION/NAME, or a folder"
    return error(
        "model-not-found",
        "The model is named by a web address: vLLM takes a folder or the id of a repository",
        evidence=(address[:200], "an id has the form ORGANISATION/NAME"),
        fixes=(Fix(title=title, launch=edit, automatic=edit is not None),),
    )


def _never_an_id(model: Model) -> Finding | None:
    """A name that huggingface.co cannot have, though nobody asked it."""
    first, slash, _ = model.given.partition("/")
    # The most similar first; the hub's few ids without an organisation (gpt2, bert-base-uncased, ...) have none.
    named = model.suggestions
    report = error if model.hub_endpoint is None else warning
    if slash and first in RESERVED:
        return report(
            "model-not-found",
            f"No folder {model.given} here: vLLM will take it for a repository on the hub",
            evidence=(
                f"{model.given} is no folder where the launch starts",
                f"huggingface.co has no organisation {first!r}: that is a page of the site",
            ),
            fixes=(
                Fix(title="Write the folder as an absolute path, or start in the folder that the path is meant from"),
            ),
        )
    if not slash and named:
        return report(
            "model-not-found",
            f"{model.given} lacks its organisation: {named[0]}",
            evidence=(f"{model.given} is neither a folder here nor the id of a repository", f"known: {named[0]}"),
            fixes=_instead(named),
        )
    return None


def _instead(names: tuple[str, ...]) -> tuple[Fix, ...]:
    return tuple(Fix(title=f"Serve {name}", launch=LaunchEdit(positional=name)) for name in names[:3])


def _not_found(model: Model, problem: ModelProblem) -> Finding:
    is_path = problem.detail.startswith("no such folder")
    title = f"No such model folder: {model.given}" if is_path else f"The hub has no model {model.given}"
    if "no revision" in problem.detail:
        title = f"{model.given} has no revision {model.revision}"
    if is_path:
        hint = Fix(title="Write the path as it is on this machine (in a container: as the container sees it)")
    else:
        hint = Fix(
            title="Look the id up on the hub: ORGANISATION/NAME, with capitals, dots and hyphens as they are there"
        )
    maybe = (f"near it: {', '.join(model.suggestions)}",) if model.suggestions else ()
    return error(
        "model-not-found", title, evidence=(problem.detail, *maybe), fixes=(*_instead(model.suggestions), hint)
    )


def _no_access(model: Model, problem: ModelProblem) -> Finding:
    named = tuple(
        s for s in model.suggestions if s.rpartition("/")[2].lower() == model.given.rpartition("/")[2].lower()
    )
    if problem.kind == "unauthorized" and named and model.given not in named:
        # The hub answers 401 for a repository that does not exist, too.
        return _not_found(model, problem)
    what = "gated" if problem.kind == "gated" else "private, or its token is refused"
    return error(
        "model-access",
        f"No access to {model.given}: the repository is {what}",
        evidence=(problem.detail,),
        fixes=(
            Fix(title=f"Accept the terms on the page of {model.given} with the account that the token belongs to"),
            Fix(
                title="Give vLLM a token that may read it: HF_TOKEN, or `hf auth login`",
                command=("hf", "auth", "login"),
            ),
        ),
    )


def _unreachable(model: Model, problem: ModelProblem) -> Finding:
    first, slash, _ = model.given.partition("/")
    if slash and first in FOLDER_WORDS:
        return error(
            "model-not-found",
            f"No folder {model.given} here: vLLM takes it for a repository on the hub",
            evidence=(f"{model.given} is no folder where the launch starts", f"as a repository: {problem.detail}"),
            fixes=(Fix(title="Write the folder as an absolute path"),),
        )
    local = Fix(title="Download the model where the hub can be reached, and serve the folder")
    if problem.kind == "not-cached":
        return error(
            "hub-unreachable",
            f"{model.given} is not in the cache, and the hub may not be asked",
            evidence=(problem.detail,),
            fixes=(
                Fix(title="Let vLLM ask the hub", launch=LaunchEdit(env={"HF_HUB_OFFLINE": "0"})),
                Fix(title="Put it into the cache first", command=("hf", "download", model.given)),
            ),
        )
    return error(
        "hub-unreachable",
        f"The hub cannot be reached, and {model.given} is not in the cache",
        evidence=(problem.detail,),
        fixes=(Fix(title="Check the proxy, the certificates and HF_ENDPOINT, from this machine"), local),
    )


FINDERS = {
    "not-found": _not_found,
    "gated": _no_access,
    "unauthorized": _no_access,
    "unreachable": _unreachable,
    "not-cached": _unreachable,
}


@check("model-files", causes=("model-files-incomplete",), needs=("model",))
def model_files(snapshot: Snapshot) -> Iterator[Finding]:
    """A file of the model is missing, cut off, empty, or a git-lfs pointer in place of the file.

    Why: vLLM reads these files one after another and ends at the first that is broken, often after minutes and without
    its name: "header too large" is a git-lfs pointer, "incomplete metadata, file not fully covered" a weight file that
    ends too early, "Invalid repository ID or local directory" a folder without config.json.
    Fix: download the file again (`hf download`, `git lfs pull`); give a folder that holds a whole model.
    """
    model = model_of(snapshot)
    if model.source is ModelSource.NOWHERE:
        known(model.config)
        raise NotApplicable("the model was not found")
    if model.is_lora_adapter:
        yield _adapter_as_model(model, snapshot.launch)
        return
    relevant = [p for p in model.problems if _counts(p, model, snapshot.launch)]
    if {("missing", "config.json"), ("missing", NO_WEIGHTS)} <= {(p.kind, p.file) for p in relevant}:
        yield _no_model(model)
        return
    for group in _grouped(relevant):
        yield _broken_files(model, group)
    yield from _only_gguf(model, snapshot.launch)
    if not relevant and downloads_missing(model) and any(p.kind in ABSENT for p in model.problems):
        raise NotKnown("the cache holds only a part of the model: vLLM will download the rest")


def _no_model(model: Model) -> Finding:
    return error(
        "model-files-incomplete",
        f"There is no model in {model.given}",
        evidence=(f"neither config.json nor any weights in {model.path or model.given}",),
        fixes=(Fix(title="Give the folder that holds config.json, the weights and the tokenizer"),),
    )


def _adapter_as_model(model: Model, launch: Launch | None) -> Finding:
    adapter = model.adapter or LoraAdapter(name="adapter", path=model.given)
    base = adapter.base_model
    fixes = [Fix(title="Merge the adapter into its base model, and serve the result")]
    if base is not None and launch is not None:
        modules = f"{adapter.name}={model.given}"
        edit = LaunchEdit(positional=base, set={"--enable-lora": None, "--lora-modules": modules})
        fixes.insert(0, Fix(title=f"Serve its base model {base} with the adapter", launch=edit))
    return error(
        "model-files-incomplete",
        f"{model.given} is a LoRA adapter, not a model",
        evidence=(
            "the folder holds adapter_config.json and no config.json",
            f"the adapter's base model: {base or 'not named'}",
        ),
        fixes=tuple(fixes),
    )


def _counts(problem: ModelProblem, model: Model, launch: Launch | None) -> bool:
    """Whether the problem stops the start: not where the file is fetched anew, or where the launch does without it."""
    if problem.kind in ABSENT and downloads_missing(model):
        return False
    if problem.kind == "incomplete-download" or problem.file == "generation_config.json":
        return False
    if problem.file.startswith(TOKENIZER_FLAG):
        return False  # the check on the tokenizer speaks of it
    if launch is None:
        return True
    if problem.file in model.tokenizer_files:
        return not launch.has("--tokenizer") and not launch.has("--skip-tokenizer-init")
    if problem.file != "config.json":
        return launch.value("--load-format") in (None, "auto", "hf", "safetensors", "pt", "fastsafetensors", "mistral")
    return launch.value("--config-format") in (None, "auto", "hf") and not launch.has("--hf-config-path")


def _grouped(problems: list[ModelProblem]) -> Iterator[tuple[ModelProblem, ...]]:
    """Problems of one kind together: twenty shards that are pointers are one finding."""
    for kind in dict.fromkeys(p.kind for p in problems):
        of_kind = tuple(p for p in problems if p.kind == kind)
        config = tuple(p for p in of_kind if p.file == "config.json")
        rest = tuple(p for p in of_kind if p.file != "config.json")
        yield from (group for group in (config, rest) if group)


# By kind: what is wrong with one file, and with several.
WORDS = {
    "missing": "is missing",
    "empty": "is empty",
    "truncated": "ends too early",
    "lfs-pointer": "is a git-lfs pointer, not the file",
    "not-json": "is no JSON",
    "bad-header": "is no whole safetensors file",
    "unreadable": "cannot be read",
    "index-names-missing-file": "is missing: the index names it",
    "index-names-missing-tensor": "names tensors that are in no file",
}


def _broken_files(model: Model, problems: tuple[ModelProblem, ...]) -> Finding:
    first = problems[0]
    words = WORDS.get(first.kind, first.kind)
    if first.file == NO_WEIGHTS:
        title = "The model has no weights"
    elif len(problems) == 1:
        title = f"{first.file} {words}"
    else:
        title = f"{len(problems)} files, {first.file} the first: each {words}"
    # What cannot be read by this user may be readable by the one who starts the server.
    report = warning if first.kind == "unreadable" else error
    lines = tuple(f"{p.file}: {p.detail}" for p in problems[:5])
    return report(
        "model-files-incomplete", title, evidence=(*lines, f"in {model.path or model.given}"), fixes=_mend(model, first)
    )


def _mend(model: Model, problem: ModelProblem) -> tuple[Fix, ...]:
    if problem.kind == "lfs-pointer" and model.path is not None:
        return (
            Fix(title="Fetch what the pointers stand for", command=("git", "-C", model.path, "lfs", "pull")),
            Fix(title="Or download the repository with `hf download`, which needs no git-lfs"),
        )
    if problem.file == "config.json" and problem.kind == "missing":
        return (Fix(title="Serve the folder that holds config.json beside the weights"), Fix(title=DOWNLOAD))
    if model.source is ModelSource.CACHE:
        command = ("hf", "download", model.given, "--force-download")
        return (Fix(title=f"{DOWNLOAD}, over those in the cache", command=command),)
    return (Fix(title=f"{DOWNLOAD}, and compare their sizes with the repository's"),)


def _only_gguf(model: Model, launch: Launch | None) -> Iterator[Finding]:
    """vLLM 0.32 default_loader.py looks for *.safetensors, *.bin and *.pt in a folder; GGUF was named by its file."""
    kinds = {w.format for w in model.weight_files}
    asked = launch.value("--load-format") if launch is not None else None
    if kinds == {"gguf"} and not model.given.endswith(".gguf") and asked in (None, "auto"):
        yield warning(
            "model-files-incomplete",
            "The folder holds GGUF weights only, which vLLM does not look for in a folder",
            evidence=(f"{len(model.weight_files)} files, {model.weight_files[0].name} the first",),
            fixes=(
                Fix(title="Serve the safetensors weights of this model"),
                Fix(title="Up to vLLM 0.23 name the .gguf file itself; from 0.24 on with vllm-gguf-plugin"),
            ),
        )


@check("tokenizer-files", causes=("model-files-incomplete", "tokenizer-broken"), needs=("model",))
def tokenizer_files(snapshot: Snapshot) -> Iterator[Finding]:
    """The model has no tokenizer files, or `--tokenizer` names a folder without them.

    Why: vLLM loads the tokenizer from the model's folder unless `--tokenizer` names another place. Folders that a
    training script saved often lack it: `model.save_pretrained` does not write the tokenizer.
    Fix: copy tokenizer.json, tokenizer_config.json and special_tokens_map.json from the base model, or give
    `--tokenizer`.
    """
    model = model_of(snapshot)
    launch = snapshot.launch
    if model.source is ModelSource.NOWHERE or model.is_lora_adapter:
        known(model.config)
        raise NotApplicable("there is no model whose tokenizer could be looked at")
    if launch is not None and launch.has("--skip-tokenizer-init"):
        raise NotApplicable("the launch takes no tokenizer")
    if launch is not None and launch.has("--tokenizer"):
        yield from _named_tokenizer(model)
        return
    if model.given.endswith(".gguf"):
        raise NotApplicable("a GGUF file holds its tokenizer itself")
    if any(p.file == "config.json" and p.kind == "missing" for p in model.problems):
        raise NotApplicable("the folder holds no model")
    if model.tokenizer_files:
        yield from _not_mistral(model, launch)
        return
    if downloads_missing(model) or (model.source is ModelSource.HUB and not model.weight_files):
        raise NotKnown("not all files of the model are known: vLLM will download the rest")
    yield error(
        "model-files-incomplete",
        "The model has no tokenizer files",
        evidence=(
            f"none of tokenizer.json, tokenizer.model, vocab.json, tekken.json, ... in {model.path or model.given}",
        ),
        fixes=(
            Fix(title="Copy the tokenizer's files from the base model into the folder"),
            Fix(title="Or name the base model with `--tokenizer`"),
        ),
    )


def _not_mistral(model: Model, launch: Launch | None) -> Iterator[Finding]:
    """mistral_common `tokens/tokenizers/utils.py`, which vLLM 0.32 asks, ends with "No tokenizer file found."."""
    if launch is None or launch.value("--tokenizer-mode") != "mistral" or model.source is not ModelSource.FOLDER:
        return
    if not any(name.startswith(("tekken", "tokenizer.model", "tokenizer.mm")) for name in model.tokenizer_files):
        yield error(
            "tokenizer-broken",
            "--tokenizer-mode mistral, and the model has no tokenizer of Mistral's own format",
            evidence=(f"found: {', '.join(model.tokenizer_files[:6])}", "neither tekken.json nor tokenizer.model"),
            fixes=(Fix(title="Drop it", launch=LaunchEdit(unset=("--tokenizer-mode",)), automatic=True),),
        )


def _named_tokenizer(model: Model) -> Iterator[Finding]:
    for problem in [p for p in model.problems if p.file.startswith(TOKENIZER_FLAG)][:1]:
        yield error(
            "tokenizer-broken",
            f"{problem.file}: {'no such folder' if problem.kind == 'not-found' else 'no whole tokenizer'}",
            evidence=(problem.detail,),
            fixes=(
                Fix(title="Drop --tokenizer: the model has its own", launch=LaunchEdit(unset=("--tokenizer",))),
                Fix(title="Or name a folder with tokenizer.json and tokenizer_config.json, or an id of the hub"),
            ),
        )
