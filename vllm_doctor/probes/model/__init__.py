"""The model that a launch names: found in a folder, in the hub's cache or on the hub, and read within bounds."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import structs

from vllm_doctor.facts import ChatTemplate, Launch, Model, ModelProblem, ModelSource, Unknown
from vllm_doctor.paths import is_file, is_folder
from vllm_doctor.probes.model import locating
from vllm_doctor.probes.model.adapters import CONFIG as ADAPTER_CONFIG
from vllm_doctor.probes.model.adapters import named_adapters, read_adapter
from vllm_doctor.probes.model.config import read_config
from vllm_doctor.probes.model.names import suggest_ids, suggest_paths
from vllm_doctor.probes.model.reading import Unreadable, names_in, read_object
from vllm_doctor.probes.model.template import read_template
from vllm_doctor.probes.model.tokenizer import read_tokenizer
from vllm_doctor.probes.model.weights import read_file, read_weights

__all__ = ["probe_model"]

# What the quantization methods of vLLM 0.32 read where config.json names no method (`get_config_filenames`).
QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json")


def probe_model(
    given: str,
    *,
    launch: Launch | None = None,
    offline: bool = True,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Model:
    """The facts of the model `given`, as vLLM would resolve the name.

    `offline`: the hub is not asked. `variables` is the environment of the launch. `folder` is where relative paths
    start. What is wrong with the model is in its `problems`; nothing is raised for it.
    """
    probe = _Probe(given, launch, offline, variables or {}, folder or Path.cwd())
    model = probe.model()
    return structs.replace(
        model,
        problems=model.problems + probe.tokenizer_problems(),
        lora_adapters=named_adapters(launch, probe.base, probe.home) if launch is not None else (),
        hub_offline=locating.is_offline(probe.variables),
        hub_endpoint=probe.variables.get("HF_ENDPOINT") or None,
    )


class _Probe:
    """One name on its way to a folder, the cache or the hub."""

    def __init__(
        self, given: str, launch: Launch | None, offline: bool, variables: Mapping[str, str], base: Path
    ) -> None:
        self.given = given
        self.launch = launch
        self.offline = offline
        self.variables = variables
        self.base = base
        self.home = variables.get("HOME")
        self.revision = self._flag("--revision")

    def _flag(self, name: str) -> str | None:
        return self.launch.value(name) if self.launch is not None else None

    def model(self) -> Model:
        """vLLM takes a folder that exists for one, and anything else for a hub id."""
        path = locating.local_path(self.given, self.base, self.home)
        if is_folder(path):
            return self._of_folder(path, ModelSource.FOLDER, self.revision)
        if is_file(path):
            return self._of_file(path)
        if named := locating.id_of_page(self.given):
            return self._page(named)
        if self.given.startswith(locating.REMOTE_SCHEMES):
            return self._nowhere(Unknown("an object store or another hub, which is not read"))
        if locating.looks_like_path(self.given) or not locating.is_repo_id(self.given):
            return self._no_path(path)
        return self._of_id()

    def _of_id(self) -> Model:
        caches = [locating.cache_folder(self.variables)]
        if directory := self._flag("--download-dir"):
            caches.insert(0, locating.local_path(directory, self.base, self.home))
        if snapshot := locating.find_snapshot(self.given, self.revision, tuple(caches)):
            model = self._of_folder(snapshot.folder, ModelSource.CACHE, snapshot.commit)
            return model if not snapshot.incomplete else _with_incomplete(model, snapshot.incomplete)
        if locating.is_true(self.variables.get("VLLM_USE_MODELSCOPE", "")):
            return self._nowhere(Unknown("VLLM_USE_MODELSCOPE: ModelScope is not asked"))
        if locating.is_offline(self.variables):
            detail = f"not in {caches[0]}, and HF_HUB_OFFLINE forbids asking the hub"
            return self._nowhere(Unknown(detail), ModelProblem(kind="not-cached", file=self.given, detail=detail))
        if self.offline:
            return self._nowhere(Unknown("not in the local cache, and the hub was not asked (--offline)"))
        from vllm_doctor.probes.model.online import hub_model  # httpx: only where the hub is asked

        template = self._template_of_launch()
        return hub_model(self.given, self.revision, self.variables, self._flag("--hf-token"), template)

    def tokenizer_problems(self) -> tuple[ModelProblem, ...]:
        """What is wrong with the folder that `--tokenizer` names; an id of the hub is not looked at."""
        value = self._flag("--tokenizer")
        if not value:
            return ()
        path, file = locating.local_path(value, self.base, self.home), f"--tokenizer {value}"
        if not is_folder(path):
            if locating.is_repo_id(value) and not locating.looks_like_path(value):
                return ()
            return (ModelProblem(kind="not-found", file=file, detail=f"no such folder: {path}"),)
        found = read_tokenizer(path, names_in(path)[0])
        if not found.files:
            return (ModelProblem(kind="missing", file=file, detail=f"no tokenizer files in {path}"),)
        return tuple(structs.replace(p, file=file, detail=f"{p.file}: {p.detail}") for p in found.problems)

    def _page(self, named: str) -> Model:
        detail = f"the address of a page of the hub: vLLM takes the id, {named}"
        problem = ModelProblem(kind="not-found", file=self.given, detail=detail)
        return structs.replace(self._nowhere(Unknown(detail), problem), suggestions=(named,))

    def _no_path(self, path: Path) -> Model:
        detail = f"no such folder: {path}"
        problem = ModelProblem(kind="not-found", file=self.given, detail=detail)
        return structs.replace(self._nowhere(Unknown(detail), problem), suggestions=suggest_paths(path))

    def _nowhere(self, why: Unknown, *problems: ModelProblem) -> Model:
        """A model of which nothing can be read."""
        return Model(
            given=self.given,
            source=ModelSource.NOWHERE,
            path=None,
            revision=self.revision,
            config=why,
            chat_template=self._template_of_launch() or why,
            tokenizer_files=(),
            weight_files=(),
            tensor_names=None,
            tensor_shapes=None,
            problems=problems,
            vocabulary_markers=why,
            suggestions=suggest_ids(self.given, locating.cached_ids(locating.cache_folder(self.variables))),
        )

    def _of_file(self, path: Path) -> Model:
        """A single weight file, as GGUF models are."""
        weights = read_file(path)
        why = Unknown(f"{path.name} is a single file: its metadata is not read")
        return structs.replace(
            self._nowhere(why),
            source=ModelSource.FOLDER,
            path=str(path),
            weight_files=weights.files,
            problems=weights.problems,
            suggestions=(),
        )

    def _of_folder(self, path: Path, source: ModelSource, revision: str | None) -> Model:
        names, complete = names_in(path)
        config, problem = read_config(path, names)
        tokenizer = read_tokenizer(path, names)
        weights = read_weights(path, names, complete)
        problems = (*((problem,) if problem else ()), *tokenizer.problems, *weights.problems)
        template = self._template_of_launch() or read_template(path, names, tokenizer.config)
        return Model(
            given=self.given,
            source=source,
            path=str(path),
            revision=revision,
            config=config,
            chat_template=template,
            tokenizer_files=tokenizer.files,
            weight_files=weights.files,
            tensor_names=weights.names,
            tensor_shapes=weights.shapes,
            problems=problems + _generation_problem(path, names),
            is_lora_adapter=ADAPTER_CONFIG in names and "config.json" not in names,
            adapter=read_adapter(path.name, str(path), path) if ADAPTER_CONFIG in names else None,
            quantization_files=tuple(n for n in QUANTIZATION_FILES if n in names),
            vocabulary_markers=tokenizer.markers,
        )

    def _template_of_launch(self) -> ChatTemplate | Unknown | None:
        """What `--chat-template` names: a file, or the template itself (vLLM 0.32 entrypoints/chat_utils.py)."""
        value = self._flag("--chat-template")
        if not value:
            return None
        from vllm_doctor.probes.model.template import described, of_file

        path = locating.local_path(value, self.base, self.home)
        if "{" not in value or is_file(path):
            return of_file(path, f"--chat-template {value}")
        return described(value, "--chat-template")


def _generation_problem(path: Path, names: frozenset[str]) -> tuple[ModelProblem, ...]:
    if "generation_config.json" not in names:
        return ()
    try:
        read_object(path / "generation_config.json", 2**20)
    except Unreadable as unreadable:
        return (unreadable.problem,)
    return ()


def _with_incomplete(model: Model, count: int) -> Model:
    detail = f"{count} downloads were begun in the cache and not ended"
    return structs.replace(
        model, problems=(*model.problems, ModelProblem(kind="incomplete-download", file=model.given, detail=detail))
    )
