"""The facts of a model that only the hub has: the same readers, over what the hub sent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_doctor.facts import ChatTemplate, Model, ModelConfig, ModelProblem, ModelSource, Unknown, WeightFile
from vllm_doctor.probes.model.adapters import CONFIG as ADAPTER_CONFIG
from vllm_doctor.probes.model.adapters import described as described_adapter
from vllm_doctor.probes.model.config import parse_config
from vllm_doctor.probes.model.hub import DEFAULT_ENDPOINT, Access, HubAnswer, ask_hub
from vllm_doctor.probes.model.locating import home_folder
from vllm_doctor.probes.model.names import suggest_ids
from vllm_doctor.probes.model.reading import Unreadable, parse_object, read_bytes
from vllm_doctor.probes.model.template import described, of_value
from vllm_doctor.probes.model.tokenizer import MARKERS, contents, tokenizer_files
from vllm_doctor.probes.model.weights import FORMATS, is_weight
from vllm_doctor.redact import MASK

SMALL_FILES = ("tokenizer_config.json", "chat_template.jinja", ADAPTER_CONFIG)


def hub_model(
    name: str,
    revision: str | None,
    variables: Mapping[str, str],
    token: str | None,
    template: ChatTemplate | Unknown | None,
) -> Model:
    """The model as the hub describes it; where it refuses, its problem and what may have been meant."""
    endpoint = (variables.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    known_token = token if token and token != MASK else stored_token(variables)
    access = Access(endpoint=endpoint, token=known_token, variables=variables)
    answer = ask_hub(name, revision, access, SMALL_FILES)
    problems: list[ModelProblem] = [answer.problem] if answer.problem else []
    config = _config(answer, problems)
    tokenizer = _object(answer, "tokenizer_config.json", problems)
    adapter = _object(answer, ADAPTER_CONFIG, problems)
    weights = _weights(answer)
    if not weights and answer.listed and not isinstance(config, Unknown):
        problems.append(ModelProblem(kind="missing", file="*.safetensors", detail="the repository lists no weights"))
    return Model(
        given=name,
        source=ModelSource.NOWHERE if answer.problem else ModelSource.HUB,
        path=None,
        revision=answer.commit or revision,
        config=config,
        chat_template=template or _template(answer, tokenizer),
        tokenizer_files=tokenizer_files(answer.files),
        weight_files=weights,
        tensor_names=None,
        tensor_shapes=None,
        problems=tuple(problems),
        is_lora_adapter=bool(adapter) and "config.json" not in answer.files,
        adapter=described_adapter(name.rpartition("/")[2], name, adapter, None) if adapter else None,
        vocabulary_markers=_markers(answer, tokenizer),
        suggestions=suggest_ids(name) if answer.problem else (),
    )


def stored_token(variables: Mapping[str, str]) -> str | None:
    """The token that the hub's client would send (huggingface_hub 2.4 utils/_auth.py): a variable, else its file."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if (value := variables.get(variable, "").strip()) and value != MASK:
            return value
    try:
        path = variables.get("HF_TOKEN_PATH")
        data = read_bytes(Path(path) if path else home_folder(variables) / "token", 4096)
    except Unreadable:
        return None
    token = data.decode("ascii", "ignore").strip()
    return token if token.isprintable() and " " not in token else None


def _config(answer: HubAnswer, problems: list[ModelProblem]) -> ModelConfig | Unknown:
    if answer.problem is not None:
        return Unknown(answer.problem.detail)
    if "config.json" not in answer.contents and "params.json" in answer.files:
        return Unknown("params.json: Mistral's own format, which is not read")
    if "config.json" not in answer.contents:
        problems.append(ModelProblem(kind="missing", file="config.json", detail="the repository has none"))
        return Unknown("config.json: the repository has none")
    try:
        return parse_config(parse_object(answer.contents["config.json"], "config.json"))
    except Unreadable as unreadable:
        problems.append(unreadable.problem)
        return Unknown(f"config.json: {unreadable.problem.detail}")


def _object(answer: HubAnswer, name: str, problems: list[ModelProblem]) -> Mapping[str, Any]:
    if name not in answer.contents:
        return {}
    try:
        return parse_object(answer.contents[name], name)
    except Unreadable as unreadable:
        problems.append(unreadable.problem)
        return {}


def _template(answer: HubAnswer, tokenizer: Mapping[str, Any]) -> ChatTemplate | Unknown | None:
    if answer.problem is not None:
        return Unknown(answer.problem.detail)
    if (data := answer.contents.get("chat_template.jinja")) is not None:
        return described(data.decode("utf-8", "replace"), "chat_template.jinja")
    if not answer.listed:
        return Unknown("the hub did not list the repository's files")
    found = of_value(tokenizer.get("chat_template"), "tokenizer_config.json")
    if found is None and answer.files.keys() & {"tekken.json", "chat_template.json"}:
        return Unknown("the repository has a template in a file that was not read")
    return found


def _weights(answer: HubAnswer) -> tuple[WeightFile, ...]:
    files = [n for n in sorted(answer.files) if "/" not in n and Path(n).suffix in FORMATS and is_weight(n)]
    kinds = {FORMATS[Path(n).suffix] for n in files}
    kept = "safetensors" if "safetensors" in kinds else "pytorch"
    found = []
    for name in files:
        kind, size = FORMATS[Path(name).suffix], answer.files[name]
        if kind in (kept, "gguf"):
            found.append(
                WeightFile(name=name, format=kind, size_bytes=Unknown("the hub did not say") if size is None else size)
            )
    return tuple(found)


def _markers(answer: HubAnswer, tokenizer: Mapping[str, Any]) -> tuple[str, ...] | Unknown:
    decoder = tokenizer.get("added_tokens_decoder")
    if answer.problem is not None or not isinstance(decoder, dict):
        return Unknown("the tokenizer is on the hub, and was not read")
    return tuple(sorted(MARKERS.intersection(contents(decoder))))
