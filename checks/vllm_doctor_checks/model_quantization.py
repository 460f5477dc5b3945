"""Checks on quantization: the method of the checkpoint, the one that the launch asks for, and what the weights hold."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import Model, ModelConfig, ModelSource
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.releases import Release
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launching import planned_release
from vllm_doctor_checks.model_facts import config_of, model_of, plugins_of

FLAG = "--quantization"
# Names of one method: the checkpoint's may be asked for by any of its family (`override_quantization_method` of
# auto_awq.py, auto_gptq.py, moe_wna16.py, humming.py and inc.py in vLLM 0.32; bitblas, ipex and marlin before).
AWQ = frozenset({"awq", "awq_marlin", "auto_awq", "marlin", "moe_wna16", "humming", "ipex", "inc"})
GPTQ = frozenset(
    {"gptq", "gptq_marlin", "auto_gptq", "marlin", "gptq_marlin_24", "gptq_bitblas", "bitblas", "moe_wna16", "humming",
     "ipex", "inc"}
)  # fmt: skip
FAMILIES = {
    "awq": AWQ,
    "gptq": GPTQ,
    "fp8": frozenset({"fp8", "humming", "deepseek_v4_fp8"}),
    "compressed-tensors": frozenset({"compressed-tensors", "humming"}),
    "bitsandbytes": frozenset({"bitsandbytes", "humming"}),
    "modelopt": frozenset({"modelopt", "modelopt_mixed", "modelopt_mxfp8", "humming"}),
    "modelopt_fp4": frozenset({"modelopt_fp4", "modelopt", "modelopt_mixed", "humming"}),
}
# What `--quantization` reads from a file of its own where config.json has no quantization_config, by method
# (`get_config_filenames`, the same files); a method that needs one and finds none ends the start.
NEEDS_FILE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("awq", "awq_marlin", "auto_awq"), ("quantize_config.json", "quant_config.json")),
    **dict.fromkeys(("gptq", "gptq_marlin", "auto_gptq", "moe_wna16"), ("quantize_config.json",)),
    **dict.fromkeys(("modelopt", "modelopt_fp4"), ("hf_quant_config.json",)),
}
# Methods whose settings stand in config.json only: asked for without them, their constructor ends with "missing N
# required positional arguments" (`get_quant_config` of model_loader/weight_utils.py, tried with 0.32.0).
NEEDS_CONFIG = ("compressed-tensors", "quark", "torchao", "fbgemm_fp8")
NEEDS_FILE.update(dict.fromkeys(NEEDS_CONFIG, ()))
NO_FILE = "and the method reads its settings from nowhere else"
# Methods that quantize plain weights while they are loaded, by kernels of CUDA, ROCm or XPU builds (tried with 0.32.0
# for CPU: "static_scaled_fp8_quant() expected at most 0 arguments", "no backend supports the deployment").
NOT_ON_CPU = frozenset({"fp8", "experts_int8"})
# Methods that vLLM maps to one of its own although its table does not name them (inc.py; `_normalize...` for ModelOpt).
ALIASES = {"auto-round": "inc", "intel/auto-round": "inc"}
# Endings of tensor names that a checkpoint of the method always has in its quantized layers.
MARKS = {
    "gptq": (".qweight", ".qzeros", ".g_idx"),
    "awq": (".qweight", ".qzeros"),
    "fp8": (".weight_scale", ".weight_scale_inv", ".input_scale", "_scale", "_scale_inv"),
}
PACKED = frozenset({"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "nvfp4-pack-quantized"})
DROP = Fix(
    title=f"Drop {FLAG}: vLLM reads the method from the checkpoint", launch=LaunchEdit(unset=(FLAG,)), automatic=True
)


@check("quantization", causes=("quantization-unsupported",), needs=("model",))
def quantization(snapshot: Snapshot) -> Iterator[Finding]:
    """The quantization is one that this vLLM does not have, is not the checkpoint's, or is only a label.

    Why: config.json names the method of a quantized checkpoint, and vLLM reads it from there. A method that is not in
    its table is "Unknown quantization method"; another one in `--quantization` "does not match"; one that the
    checkpoint lacks "Cannot find the config file". Weights that are labelled and not quantized fail in the load, or
    load without a word and answer rubbish.
    Fix: drop `--quantization`; take a vLLM (or its plugin) that has the method, or another checkpoint.
    """
    model, config = model_of(snapshot), config_of(snapshot)
    method = ALIASES.get(config.quantization_method or "", config.quantization_method) or None
    asked = snapshot.launch.value(FLAG) if snapshot.launch is not None else None
    if method is None and asked in (None, "None"):
        return
    release = planned_release(snapshot)
    unknown = tuple(_unknown(method, asked, release, snapshot))
    yield from unknown
    if not unknown:
        yield from _mismatch(model, method, asked, snapshot)
    if method is not None:
        yield from _only_a_label(model, config, method)


def _unknown(method: str | None, asked: str | None, release: Release, snapshot: Snapshot) -> Iterator[Finding]:
    if not release.quantization:
        raise NotKnown(f"the quantization methods of vLLM {release.version} are not known")
    plugins = plugins_of(snapshot)
    for name, where in ((asked, FLAG), (method, "config.json")):
        if name is None or name in release.quantization or (where == "config.json" and name == asked):
            continue
        report = warning if plugins else error
        drop = (
            (Fix(title=f"Drop {FLAG}", launch=LaunchEdit(unset=_with_loader(name, snapshot))),) if where == FLAG else ()
        )
        yield report(
            "quantization-unsupported",
            f"vLLM {release.version} has no quantization method {name!r}",
            evidence=(
                f"{where}: {name}",
                f"vLLM {release.version} has {', '.join(sorted(release.quantization))}",
                *_history(name),
                *((f"a plugin may bring it: {', '.join(plugins[:4])}",) if plugins else ()),
            ),
            fixes=(
                *drop,
                *_ways_out(name),
                Fix(title="Serve a checkpoint that is quantized with one of these methods"),
            ),
        )


def _with_loader(name: str, snapshot: Snapshot) -> tuple[str, ...]:
    """The flag, and `--load-format` where it names the same method, which has no loader then."""
    same = snapshot.launch is not None and snapshot.launch.value("--load-format") == name
    return (FLAG, "--load-format") if same else (FLAG,)


def _history(name: str) -> tuple[str, ...]:
    from vllm_doctor.releases import quantization_history

    return tuple(f"vLLM {s.first} to {s.last or 'the newest'} had it" for s in quantization_history(name)[:2])


# Methods that moved out of the tree into plugins of the vLLM project: gguf after 0.23.0, bitsandbytes after 0.27.1.
PLUGINS = {"gguf": "vllm-gguf-plugin", "bitsandbytes": "vllm-bnb-plugin"}


def _ways_out(name: str) -> tuple[Fix, ...]:
    if plugin := PLUGINS.get(name):
        return (Fix(title=f"Install {plugin}, where {name} lives now", command=("pip", "install", plugin)),)
    return ()


def _mismatch(model: Model, method: str | None, asked: str | None, snapshot: Snapshot) -> Iterator[Finding]:
    if asked is None:
        return
    if method is None:
        yield from _not_quantized(model, asked, snapshot)
        return
    family = FAMILIES.get(method)
    judged = asked in FAMILIES or any(asked in f for f in FAMILIES.values())
    if family is None or not judged or asked in family:
        return
    yield error(
        "quantization-unsupported",
        f"{FLAG} {asked} does not match the checkpoint, which is {method}",
        evidence=(f"config.json: quant_method {method}", f"the launch: {FLAG} {asked}"),
        fixes=(DROP,),
    )


def _not_quantized(model: Model, asked: str, snapshot: Snapshot) -> Iterator[Finding]:
    files = NEEDS_FILE.get(asked)
    if snapshot.platform == "cpu" and asked in NOT_ON_CPU:
        yield error(
            "quantization-unsupported",
            f"{FLAG} {asked} quantizes while loading, by kernels that a CPU build does not have",
            evidence=(f"the launch: {FLAG} {asked}", "config.json has no quantization_config"),
            fixes=(DROP,),
        )
        return
    if files is None or set(files) & set(model.quantization_files):
        return
    if model.source is ModelSource.NOWHERE:
        raise NotApplicable("the model was not found")
    if model.source is ModelSource.HUB:
        raise NotKnown("whether the repository has a quantization config of its own was not asked")
    yield error(
        "quantization-unsupported",
        f"{FLAG} {asked}, but the checkpoint is not quantized",
        evidence=(
            "config.json has no quantization_config",
            f"and there is no {' or '.join(files)} in {model.path or model.given}" if files else NO_FILE,
        ),
        fixes=(
            DROP,
            Fix(title=f"Or serve a checkpoint that is quantized with {asked}"),
        ),
    )


def _only_a_label(model: Model, config: ModelConfig, method: str) -> Iterator[Finding]:
    """A quantized checkpoint by its config whose weights are plain."""
    marks = _compressed_marks(config) if method == "compressed-tensors" else MARKS.get(method, ())
    if not marks or model.source in (ModelSource.NOWHERE, ModelSource.HUB):
        return
    if model.tensor_names is None:
        if model.weight_files and all(w.format != "safetensors" for w in model.weight_files):
            return
        raise NotKnown("not all safetensors headers could be read")
    dtypes = sorted({d for w in model.weight_files for d in w.dtypes})
    if any(name.endswith(marks) for name in model.tensor_names) or any(d.startswith("F8") for d in dtypes):
        return
    yield error(
        "quantization-unsupported",
        f"config.json calls the weights {method}, but they are plain",
        evidence=(
            f"config.json: quant_method {method}",
            f"none of {len(model.tensor_names)} tensors ends with {', '.join(marks[:3])}; dtypes: {', '.join(dtypes)}",
        ),
        fixes=(
            Fix(title=f"Take weights that are quantized with {method}"),
            Fix(title="Or take quantization_config out of config.json, if the weights are meant to be plain"),
        ),
    )


def _compressed_marks(config: ModelConfig) -> tuple[str, ...]:
    whole = config.whole().get("quantization_config")
    if not isinstance(whole, dict) or whole.get("quantization_status") != "compressed":
        return ()
    return (".weight_scale", ".weight_packed", ".weight_scale_inv") if whole.get("format") in PACKED else ()
