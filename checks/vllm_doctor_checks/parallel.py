"""Checks of the parallel sizes: against the GPUs there are, and against the model's shape."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, NotKnown, check, given, known
from vllm_doctor.facts import Launch
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.devices import answering, chosen, variables
from vllm_doctor_checks.launching import numbers, planned_version, switched


class Sizes:
    """The parallel sizes of a launch; 1 where none is given."""

    def __init__(self, launch: Launch) -> None:
        self.tensor = _size(launch, "--tensor-parallel-size")
        self.pipeline = _size(launch, "--pipeline-parallel-size")
        self.data = _size(launch, "--data-parallel-size-local", _size(launch, "--data-parallel-size"))
        self.context = _size(launch, "--prefill-context-parallel-size")

    @property
    def world(self) -> int:
        """The workers of one replica."""
        return self.tensor * self.pipeline * self.context

    @property
    def here(self) -> int:
        """The workers on this machine, where it is the only one."""
        return self.world * self.data

    @property
    def shown(self) -> str:
        """The product as a finding prints it."""
        parts = [f"tensor parallel {self.tensor}", f"pipeline parallel {self.pipeline}" if self.pipeline > 1 else ""]
        parts += [
            f"data parallel {self.data}" if self.data > 1 else "",
            f"context parallel {self.context}" if self.context > 1 else "",
        ]
        return " x ".join(part for part in parts if part)


def _size(launch: Launch, name: str, default: int = 1) -> int:
    if not launch.has(name):
        return default
    number = launch.number(name)
    if number is None:
        raise NotKnown(f"{name} {launch.value(name)} is no number")
    return number


def _spans_machines(launch: Launch) -> str | None:
    """Why the workers need not be on this machine."""
    if launch.value("--distributed-executor-backend") in ("ray", "external_launcher"):
        return f"--distributed-executor-backend {launch.value('--distributed-executor-backend')} may use other machines"
    if (launch.number("--nnodes") or 1) > 1:
        return "the launch spans several machines (--nnodes)"
    if launch.value("--data-parallel-backend") == "ray":
        return "--data-parallel-backend ray may use other machines"
    return "--device-ids chooses the GPUs" if launch.has("--device-ids") else None


@check("gpu-count", causes=("gpu-count",), needs=("launch",), platforms=("cuda", "cpu"))
def gpu_count(snapshot: Snapshot) -> Iterator[Finding]:
    """The launch asks for more GPUs than vLLM will see.

    Tensor, pipeline and data parallel sizes multiply to the number of workers, and each worker needs a GPU of its own
    (a CPU build: a NUMA node of its own).

    Why: vLLM ends with `World size (N) is larger than the number of available GPUs`, or waits for GPUs that never come.
    Fix: lower the sizes, make more GPUs visible, or spread the launch over machines.
    """
    launch = snapshot.launch
    assert launch is not None
    sizes = Sizes(launch)
    if sizes.here <= 1:
        raise NotApplicable("the launch asks for one GPU only")
    if elsewhere := _spans_machines(launch):
        raise NotApplicable(elsewhere)
    if snapshot.platform == "cpu":
        yield from _numa_nodes(snapshot, sizes)
        return
    if snapshot.platform is None:
        raise NotKnown("what this vLLM is built for is not known")
    visible = chosen(snapshot, answering(snapshot))
    count = len(visible.gpus)
    if sizes.here > count:
        yield _too_many(snapshot, launch, sizes, count, visible.variable)


def _too_many(snapshot: Snapshot, launch: Launch, sizes: Sizes, count: int, variable: str | None) -> Finding:
    evidence = [f"{sizes.shown} = {sizes.here} GPUs asked for", f"{count} visible to vLLM"]
    if variable is not None:
        evidence.append(f"CUDA_VISIBLE_DEVICES={variable}")
    docker = launch.docker
    if docker is not None and docker.gpus is not None:
        evidence.append(f"--gpus {docker.gpus}")
    fixes: list[Fix] = []
    rest = sizes.here // sizes.tensor
    fitting = _fitting(snapshot, count // rest) if rest <= count else None
    if fitting is not None and fitting < sizes.tensor:
        edit = LaunchEdit(set={"--tensor-parallel-size": str(fitting)})
        fixes.append(Fix(title=f"Lower the tensor parallel size to {fitting}", launch=edit, automatic=True))
    elif count and sizes.pipeline > 1 and sizes.tensor * sizes.data <= count:
        edit = LaunchEdit(unset=("--pipeline-parallel-size",))
        fixes.append(Fix(title="Leave pipeline parallelism out", launch=edit, automatic=True))
    fixes.append(Fix(title="Make more GPUs visible, or spread the launch over machines (--nnodes, ray)"))
    title = f"The launch asks for {sizes.here} GPUs, and vLLM will see {count}"
    return error("gpu-count", title, evidence=tuple(evidence), fixes=tuple(fixes))


def _fitting(snapshot: Snapshot, most: int) -> int | None:
    """The largest tensor parallel size up to `most` that divides the model's heads."""
    heads = _heads(snapshot)
    return next((size for size in range(min(most, 1024), 0, -1) if heads is None or heads % size == 0), None)


def _heads(snapshot: Snapshot) -> int | None:
    config = getattr(snapshot.model, "config", None)
    return getattr(config, "num_attention_heads", None)


def _numa_nodes(snapshot: Snapshot, sizes: Sizes) -> Iterator[Finding]:
    """A NUMA node for each worker, unless the threads are bound by hand.

    SOURCE: vllm/utils/ompmultiprocessing.py, 0.32.0 (`Not enough allowed NUMA nodes to bind threads`). It counts the
    workers of one replica: data parallel replicas share the nodes (tried with two on one node).
    """
    values = variables(snapshot)
    if values.get("VLLM_CPU_OMP_THREADS_BIND") not in (None, "auto") or "VLLM_CPU_SIM_MULTI_NUMA" in values:
        raise NotApplicable("the workers' threads are bound by hand")
    host = known(snapshot.host)
    if not host.memory_nodes:
        raise NotKnown("the NUMA nodes of this host are not known")
    nodes = len(host.memory_nodes)
    if sizes.world <= nodes:
        return
    fixes = [Fix(title="Leave the parallel sizes out", launch=LaunchEdit(unset=_given_sizes(snapshot)), automatic=True)]
    if isinstance(host.cpu_count, int) and host.cpu_count >= sizes.world:
        bind = "|".join(str(core) for core in range(sizes.world))
        edit = LaunchEdit(env={"VLLM_CPU_OMP_THREADS_BIND": bind})
        fixes.append(Fix(title="Or bind each worker's threads to cores of its own", launch=edit))
    yield error(
        "gpu-count",
        f"The launch asks for {sizes.world} CPU workers, and this host has {nodes} NUMA node{'s' * (nodes != 1)}",
        evidence=(
            f"{sizes.shown}: {sizes.world} workers a replica",
            f"NUMA nodes: {nodes}",
            "VLLM_CPU_OMP_THREADS_BIND is not set",
        ),
        fixes=tuple(fixes),
    )


def _given_sizes(snapshot: Snapshot) -> tuple[str, ...]:
    assert snapshot.launch is not None
    names = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size", "--data-parallel-size-local")
    return tuple(name for name in names if snapshot.launch.has(name))


@check("tp-heads", causes=("tp-divisibility",), needs=("launch", "model"))
def tp_heads(snapshot: Snapshot) -> Iterator[Finding]:
    """The model's heads, widths or layers cannot be divided by the parallel sizes.

    Tensor parallelism gives each GPU an equal share of the attention heads, of the vocabulary (padded to 64 rows), of
    the MLPs' widths, of Mamba-2 heads and groups, and whole blocks or groups of a packed checkpoint; pipeline
    parallelism gives each one layer or more, and not every model can be split so.

    Why: vLLM ends with `Total number of attention heads (H) must be divisible by tensor parallel size (N)`, with `The
    output_size of gate's and up's weight = 192 is not divisible by weight quantization block_n = 128`, or with an
    assertion while it makes the layers.
    Fix: choose a tensor parallel size that divides them all; experts of FP8 blocks stay whole with
    --enable-expert-parallel.
    """
    launch = snapshot.launch
    assert launch is not None
    sizes = Sizes(launch)
    if sizes.tensor <= 1 and sizes.pipeline <= 1:
        raise NotApplicable("the launch has no tensor or pipeline parallelism")
    config = known(given(snapshot.model, "no model is named").config)
    if sizes.tensor > 1:
        heads = config.num_attention_heads
        if heads is None:
            raise NotKnown("config.json does not say how many attention heads the model has")
        if heads % sizes.tensor:
            yield _undivided(snapshot, heads, sizes)
            return
    layers = config.num_hidden_layers
    if layers is not None and sizes.pipeline > layers:
        yield _too_few_layers(layers, sizes)
        return
    yield from _built(snapshot, launch, config.raw, sizes)
    yield from _experts(snapshot, launch, sizes)


def _built(snapshot: Snapshot, launch: Launch, raw: str, sizes: Sizes) -> Iterator[Finding]:
    """What the layers themselves refuse; silent about a model whose layers are not known.

    SOURCE: vllm_doctor.memory.parallelism, which names vLLM's lines.
    """
    from msgspec.structs import replace

    from vllm_doctor.errors import DoctorError
    from vllm_doctor.memory.backend import architecture_of
    from vllm_doctor.memory.parallelism import indivisible
    from vllm_doctor.memory.settings import read_settings

    try:
        architecture, settings = architecture_of(raw, launch), read_settings(launch)
    except DoctorError:
        return
    if snapshot.platform == "cpu":
        # Packed checkpoints have kernels of their own there.
        architecture = replace(architecture, quantization=None)
    release = _release(snapshot)
    refusal = indivisible(architecture, settings, release)
    if refusal is None:
        return
    smaller = [
        size
        for size in range(sizes.tensor - 1, 0, -1)
        if indivisible(architecture, replace(settings, tensor_parallel_size=size), release) is None
    ]
    yield _refused(refusal, smaller[0] if smaller else None, sizes, split_experts="gate's and up's" in refusal)


def _release(snapshot: Snapshot) -> tuple[int, int, int] | None:
    from vllm_doctor.memory.facts import release_numbers

    try:
        return release_numbers(planned_version(snapshot))
    except NotKnown:
        return None


def _refused(refusal: str, smaller: int | None, sizes: Sizes, *, split_experts: bool) -> Finding:
    fixes: list[Fix] = []
    if split_experts:
        edit = LaunchEdit(set={"--enable-expert-parallel": None})
        fixes.append(Fix(title="Keep the experts whole with --enable-expert-parallel", launch=edit, automatic=True))
    if smaller is not None:
        edit = LaunchEdit(set={"--tensor-parallel-size": str(smaller)})
        title = f"Use --tensor-parallel-size {smaller}"
        fixes.append(Fix(title=title, launch=edit, automatic=not split_experts))
    elif sizes.pipeline > 1:
        edit = LaunchEdit(unset=("--pipeline-parallel-size",))
        fixes.append(Fix(title="Leave pipeline parallelism out", launch=edit, automatic=True))
    how = "into pipeline stages" if smaller is None else f"by tensor parallel size {sizes.tensor}"
    return error(
        "tp-divisibility",
        f"This model's layers cannot be divided {how}",
        evidence=(sizes.shown, f"vLLM would say: {refusal}"),
        fixes=tuple(fixes),
    )


def _undivided(snapshot: Snapshot, heads: int, sizes: Sizes) -> Finding:
    """SOURCE: `verify_with_parallel_config` of vllm/config (config.py before 0.9); so in every release."""
    smaller = _fitting(snapshot, sizes.tensor)
    divisors = [str(size) for size in range(1, min(heads, 128) + 1) if heads % size == 0]
    edit = LaunchEdit(set={"--tensor-parallel-size": str(smaller)})
    return error(
        "tp-divisibility",
        f"{heads} attention heads cannot be divided by tensor parallel size {sizes.tensor}",
        evidence=(
            f"--tensor-parallel-size {sizes.tensor}; num_attention_heads {heads} in config.json",
            f"possible sizes: {', '.join(divisors)}",
        ),
        fixes=(Fix(title=f"Use --tensor-parallel-size {smaller}", launch=edit, automatic=True),),
    )


def _too_few_layers(layers: int, sizes: Sizes) -> Finding:
    return error(
        "tp-divisibility",
        f"{layers} layers cannot be spread over {sizes.pipeline} pipeline stages",
        evidence=(f"--pipeline-parallel-size {sizes.pipeline}; num_hidden_layers {layers} in config.json",),
        fixes=(
            Fix(
                title=f"Use at most {layers} stages",
                launch=LaunchEdit(set={"--pipeline-parallel-size": str(layers)}),
                automatic=True,
            ),
        ),
    )


def _experts(snapshot: Snapshot, launch: Launch, sizes: Sizes) -> Iterator[Finding]:
    """Expert parallelism of a model without experts ends the start (`_verify_with_expert_parallelism`, 0.9 to 0.33)."""
    if switched(launch, "enable-expert-parallel") is not True:
        return
    raw = getattr(getattr(snapshot.model, "config", None), "raw", "")
    if raw and "expert" not in raw and raw != "{}" and numbers(planned_version(snapshot)) >= (0, 9):
        yield warning(
            "tp-divisibility",
            "--enable-expert-parallel for a model whose config.json names no experts",
            evidence=("--enable-expert-parallel", f"{sizes.shown}; no key of config.json is about experts"),
            fixes=(
                Fix(
                    title="Drop --enable-expert-parallel",
                    launch=LaunchEdit(unset=("--enable-expert-parallel",)),
                    automatic=True,
                ),
            ),
        )
