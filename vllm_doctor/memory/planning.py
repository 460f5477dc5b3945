"""From facts to a plan: the model's config, the launch's settings, the GPUs, and the command that fits."""

from collections.abc import Iterator, Mapping

from msgspec import Struct, structs

from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Gpu, Gpus, Launch, Model, NvmlUnavailable, Unknown, WeightFile
from vllm_doctor.finding import LaunchEdit
from vllm_doctor.launch import edit, render
from vllm_doctor.memory import catalogue, parallelism
from vllm_doctor.memory.advice import MAXIMUM_ADVICE, Advice, Case, advise
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.backend import architecture_of
from vllm_doctor.memory.budget import device_of_gpus
from vllm_doctor.memory.capacity import Capacities, capacities
from vllm_doctor.memory.drafting import draft_of
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Quantization, Release, release_numbers
from vllm_doctor.memory.measured import Measured
from vllm_doctor.memory.plan import NO_EXTRAS, REFUSED, Certainty, Extras, Plan, Verdict, plan
from vllm_doctor.memory.refusals import BadFlag, architecture_refusal, bad_flags, kernels_missing
from vllm_doctor.memory.settings import read_settings
from vllm_doctor.snapshot import Snapshot

# One machine has no more GPUs than this.
MOST_GPUS = 16


class Config(Struct, frozen=True, kw_only=True):
    """A model's config as JSON text and where it is from; `entry` is the catalogue's where that knows the model.

    `draft` is the config of the speculative model, where that was read.
    """

    text: str
    origin: str
    entry: catalogue.Entry | None = None
    weight_files: tuple[WeightFile, ...] = ()
    draft: str | None = None


class Planned(Struct, frozen=True, kw_only=True):
    """A plan with what it was made of; `gpus` are those at hand, none where the card is not here."""

    plan: Plan
    launch: Launch
    name: str
    config: Config
    architecture: Architecture
    settings: LaunchSettings
    device: Device
    release: Release | None
    extras: Extras
    gpus: tuple[Gpu, ...] = ()
    bad_flags: tuple[BadFlag, ...] = ()

    def advice(self) -> tuple[Advice, ...]:
        """Changes that make it fit, the one that costs least first."""
        if self.plan.fits:
            return ()
        if self.plan.verdict is Verdict.BAD_FLAG:
            return tuple(self._without_bad_flags())
        if self.plan.verdict in (Verdict.ARCH_UNSUPPORTED, Verdict.MODEL_ARCH_UNSUPPORTED):
            return ()
        quantized = () if self.plan.verdict in REFUSED else tuple(self._quantized())[:_MOST_CHECKPOINTS]
        found = sorted((*advise(self._case), *quantized), key=lambda a: _cost(a, idle=self._idle))
        return tuple(found[:MAXIMUM_ADVICE])

    @property
    def _idle(self) -> bool:
        return self.plan.gpus_needed < self.device.count

    def capacities(self) -> Capacities:
        """How many requests fit at once, by their length."""
        return capacities(self.plan, self.architecture, self.settings, self.release, self.extras.draft)

    def gpus_that_do(self) -> int | None:
        """How many GPUs of this kind the launch would fit as it is, by tensor parallelism; None where not even 16."""
        if self.settings.pipeline_parallel_size * self.settings.data_parallel_size > 1:
            return None
        for size in parallelism.sizes(self.architecture, MOST_GPUS, self.release):
            more = structs.replace(self.device, count=size, free_bytes=None)
            changed = structs.replace(self.settings, tensor_parallel_size=size)
            if plan(self.architecture, changed, more, self.release, self.extras).fits:
                return size
        return None

    def in_four_bits(self) -> Plan | None:
        """The plan of the model with 4-bit weights on as few of the GPUs at hand as do; None where not even all do."""
        memory_fails = self.plan.verdict not in REFUSED and not self.plan.fits
        if not memory_fails or self.architecture.quantization is not None or self.settings.quantization is not None:
            return None
        packed = structs.replace(self.architecture, quantization=_FOUR_BITS)
        stages = self.settings.pipeline_parallel_size * self.settings.data_parallel_size
        for size in parallelism.sizes(packed, self.device.count // max(1, stages), self.release):
            if size < self.settings.tensor_parallel_size:
                continue
            changed = structs.replace(self.settings, tensor_parallel_size=size)
            found = plan(packed, changed, self.device, self.release, self.extras)
            if found.fits:
                return found
        return None

    @property
    def _case(self) -> Case:
        return Case(
            architecture=self.architecture,
            settings=self.settings,
            device=self.device,
            release=self.release,
            plan=self.plan,
            extras=self.extras,
        )

    def _quantized(self) -> Iterator[Advice]:
        """The same model as its publisher quantized it, where the catalogue has that; with one more change at most.

        What the launch says of quantization goes: vLLM refuses another method than the checkpoint's.
        """
        settings = structs.replace(self.settings, quantization=None)
        dropped = ("--quantization",) if self.launch.has("--quantization") else ()
        for entry in catalogue.quantized(self.name) if self.architecture.quantization is None else ():
            architecture = read_architecture(entry.config_json)
            method = architecture.quantization.method if architecture.quantization is not None else "other"
            title = f"Serve {entry.name}: the same model with {method} weights"
            found = plan(architecture, settings, self.device, self.release)
            if found.fits:
                yield Advice(title=title, edit=LaunchEdit(positional=entry.name, unset=dropped), result=found)
                continue
            case = structs.replace(
                self._case, architecture=architecture, settings=settings, plan=found, extras=NO_EXTRAS
            )
            further = next((a for a in advise(case) if a.certain), None)
            if further is not None and len(further.edit.set) == 1:
                changed = structs.replace(further.edit, positional=entry.name, unset=dropped)
                yield Advice(title=f"{title}. {further.title}", edit=changed, result=further.result)

    def _without_bad_flags(self) -> Iterator[Advice]:
        """The launch without the flags that the release does not take, and with what it needs then."""
        names = tuple(dict.fromkeys(flag.name for flag in self.bad_flags))
        kept = edit.apply(self.launch, LaunchEdit(unset=names))
        then = of_launch(kept, self.config, self.device, self.release, self.gpus, self.extras.measured)
        title = f"Leave {' and '.join(names)} out"
        if then.plan.fits:
            yield Advice(title=title, edit=LaunchEdit(unset=names), result=then.plan)
        for further in then.advice():
            changed = structs.replace(further.edit, unset=(*names, *further.edit.unset))
            also = f"{further.title[0].lower()}{further.title[1:]}"
            yield Advice(title=f"{title}; {also}", edit=changed, result=further.result)

    def corrected(self, advice: tuple[Advice, ...]) -> str | None:
        """The launch with the first of the changes that does for certain; None where there is none."""
        first = next((a for a in advice if a.certain), None)
        return None if first is None else render.command_line(edit.apply(self.launch, first.edit))


# As AWQ checkpoints are packed, nearly all of them.
_FOUR_BITS = Quantization(method="awq", bits=4, group=128, symmetric=False)

# Of a publisher's checkpoints as many: more of them would leave no room for other ways.
_MOST_CHECKPOINTS = 2

# A context, a share of the card and the cache's dtype cost less than another checkpoint, and that less than the rest.
_CHEAP = ("--max-model-len", "--gpu-memory-utilization", "--kv-cache-dtype")


def _cost(advice: Advice, *, idle: bool) -> int:
    """The place in the list: what may be tried for nothing and GPUs that stand idle come first."""
    first = next(iter(advice.edit.set), "")
    if not advice.certain:
        return -2
    if idle and first == "--tensor-parallel-size" and len(advice.edit.set) == 1 and advice.edit.positional is None:
        return -1
    if advice.edit.positional is not None:
        return len(_CHEAP)
    return _CHEAP.index(first) if first in _CHEAP and len(advice.edit.set) < 3 else len(_CHEAP) + 1


def config_of(name: str, model: Model | Unknown | None) -> Config | Unknown:
    """The config at hand (a folder's, the cache's or the hub's), else the catalogue's."""
    entry = catalogue.find(name)
    if isinstance(model, Model) and not isinstance(model.config, Unknown):
        place = model.path or f"the hub's {name}"
        return Config(
            text=model.config.raw,
            origin=f"config.json of {place}",
            entry=entry,
            weight_files=model.weight_files,
        )
    if entry is not None:
        return Config(text=entry.config_json, origin=_of_the_catalogue(entry), entry=entry)
    if model is None:
        return Unknown("no launch names a model")
    reason = (
        model.reason if isinstance(model, Unknown) else model.config.reason if isinstance(model.config, Unknown) else ""
    )
    return Unknown(reason or f"the config of {name} is not known")


def _of_the_catalogue(entry: catalogue.Entry) -> str:
    """Where an entry's facts are from, and what of them was compared with what."""
    derived = f", as {entry.derived_from} with the quantization of the name" if entry.derived_from else ""
    compared = "compared with nothing else"
    if (found := entry.compared) is not None:
        extent = "all facts" if found.facts is None else f"{len(found.facts)} facts"
        others = f" and {len(found.sources) - 1} more" if len(found.sources) > 1 else ""
        compared = f"{extent} agree with {found.sources[0]}{others}"
    return f"the catalogue{derived} ({entry.source}: that file itself was not read; {compared})"


def of_launch(
    launch: Launch,
    config: Config,
    device: Device,
    release: Release | None,
    gpus: tuple[Gpu, ...] = (),
    measured: Measured | None = None,
    variables: Mapping[str, str | None] | None = None,
) -> Planned:
    """Plan the launch; raises DoctorError where its config or a setting makes no sense.

    `variables` are those of the environment that the launch will see beside its own.
    """
    name = launch.model or ""
    if launch.has("--hf-overrides"):
        raise DoctorError("--hf-overrides changes the config, and is not read", "plan the model without it")
    architecture = architecture_of(config.text, launch)
    settings = read_settings(_with_variables(launch, variables or {}))
    draft = _draft(settings, architecture, config)
    extras = Extras(weight_files=config.weight_files, draft=draft, measured=measured)
    return Planned(
        plan=plan(architecture, settings, device, release, extras),
        extras=extras,
        launch=launch,
        name=name,
        config=config,
        architecture=architecture,
        settings=settings,
        device=device,
        release=release,
        gpus=gpus,
    )


def _with_variables(launch: Launch, variables: Mapping[str, str | None]) -> Launch:
    """The launch with the settings of vLLM that it inherits; what it says itself wins."""
    inherited = {name: value for name, value in variables.items() if value is not None and name.startswith("VLLM_")}
    return structs.replace(launch, environment={**inherited, **launch.environment}) if inherited else launch


def refused(planned: Planned) -> Planned:
    """The plan with what else than memory ends the start for certain: flags, no code or no kernels of the release."""
    flags = tuple(bad_flags(planned.launch, planned.release))
    if flags:
        return structs.replace(planned, plan=_ended(planned.plan, Verdict.BAD_FLAG, flags[0].said), bad_flags=flags)
    name = planned.architecture.name
    if (error := architecture_refusal(name, planned.release)) is not None:
        return structs.replace(planned, plan=_ended(planned.plan, Verdict.MODEL_ARCH_UNSUPPORTED, error))
    if kernels_missing(planned.device, planned.release) is not None:
        error = "CUDA error: no kernel image is available for execution on the device"
        return structs.replace(planned, plan=_ended(planned.plan, Verdict.ARCH_UNSUPPORTED, error))
    return planned


def _ended(found: Plan, verdict: Verdict, error: str) -> Plan:
    """The plan of a launch that does not come as far as its memory."""
    return structs.replace(
        found,
        verdict=verdict,
        pessimistic=verdict,
        certainty=Certainty.CERTAIN,
        error=error,
        margin_bytes=0,
        blocks=0,
        tokens=0,
        max_concurrency=0.0,
    )


def _draft(settings: LaunchSettings, architecture: Architecture, config: Config) -> Architecture | None:
    """The speculative model: of the model's own layers, of a config that was read, or of the catalogue."""
    entry = catalogue.find(settings.draft.model) if settings.draft is not None and settings.draft.model else None
    known = config.draft or (entry.config_json if entry is not None else None)
    return draft_of(settings.draft, architecture, config.text, known)


def of_snapshot(snapshot: Snapshot) -> Planned | Unknown | None:
    """The plan of a snapshot's launch; None where there is nothing to plan, Unknown where a fact is missing."""
    launch = snapshot.launch
    if launch is None or launch.model is None or snapshot.platform not in ("cuda", None):
        return None
    if isinstance(snapshot.gpus, NvmlUnavailable):
        return None
    if isinstance(snapshot.gpus, Unknown):
        return snapshot.gpus
    gpus = visible(snapshot, snapshot.gpus)
    device = gpus if isinstance(gpus, Unknown) else device_of_gpus(gpus)
    config = config_of(launch.model, snapshot.model)
    for fact in (gpus, device, config):
        if isinstance(fact, Unknown):
            return fact
    assert isinstance(config, Config) and isinstance(device, Device) and not isinstance(gpus, Unknown)
    version = snapshot.vllm_version
    try:
        release = release_numbers(version) if version else None
        return of_launch(launch, config, device, release, gpus, variables=snapshot.variables)
    except DoctorError as problem:
        return Unknown(str(problem))


def visible(snapshot: Snapshot, gpus: Gpus) -> tuple[Gpu, ...] | Unknown:
    """The GPUs that the launch will see: all of a kind, or those that CUDA_VISIBLE_DEVICES names by number or UUID."""
    here = tuple(g for g in gpus.devices if g.lost is None)
    if any(g.mig_enabled is True for g in here):
        return Unknown("the GPUs are split by MIG, and which instance the launch gets is not known")
    docker = snapshot.launch.docker if snapshot.launch is not None else None
    if docker is not None and docker.gpus not in (None, "all"):
        if not str(docker.gpus).isdecimal():
            return Unknown(f"which GPUs `--gpus {docker.gpus}` gives to the container is not worked out here")
        here = here[: int(str(docker.gpus)[:4])]
    named = snapshot.variables.get("CUDA_VISIBLE_DEVICES", "") if "CUDA_VISIBLE_DEVICES" in snapshot.variables else None
    if named is not None:
        here = tuple(g for word in named.split(",") for g in here if _is(word.strip(), g))
    if not here:
        return Unknown("no GPU is visible to the launch")
    if len({g.name for g in here}) > 1:
        return Unknown("the GPUs differ from one another")
    return here


def _is(word: str, gpu: Gpu) -> bool:
    return word == str(gpu.index) or (len(word) > 4 and word.startswith("GPU-") and gpu.uuid.startswith(word))
