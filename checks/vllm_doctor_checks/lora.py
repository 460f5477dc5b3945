"""Checks on LoRA adapters against the launch and the model that they are for."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import Launch, LoraAdapter, Model
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launching import planned_release
from vllm_doctor_checks.model_facts import is_at_least, launch_of, model_of

MODULES, ENABLE, RANK = "--lora-modules", "--enable-lora", "--max-lora-rank"
# `max_lora_rank` of vllm/config/lora.py, 0.4.0 to 0.33.0.
DEFAULT_RANK = 16
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Features that releases before 0.32 do not look for (lora/peft_helper.py `_validate_features`).
NEW_REFUSALS = ("lora_bias", "layer_replication", "Activated LoRA", "BD-LoRA", "QALoRA", "init_lora_weights")
# Modules that vLLM's models have under names that no tensor of the checkpoint has.
RENAMED = frozenset({"embed_tokens", "lm_head", "qkv_proj", "gate_up_proj", "query_key_value", "c_attn", "classifier",
                     "score", "wte", "in_proj", "x_proj", "fused_qkv_a_proj", "kv_b_proj"})  # fmt: skip


@check("lora-adapter", causes=("lora-config",), needs=("launch", "model"))
def lora_adapter(snapshot: Snapshot) -> Iterator[Finding]:
    """A LoRA adapter does not fit the launch or the model: too high a rank, modules the model lacks, files missing.

    Why: vLLM loads the adapters of `--lora-modules` last, after the whole model: an adapter of a higher rank than
    `--max-lora-rank` (16 unless given), or for modules that the model does not have, ends a start that has taken
    minutes.
    Fix: a higher `--max-lora-rank`, or the adapter that belongs to this model.
    """
    launch, model = launch_of(snapshot), model_of(snapshot)
    if not launch.has(MODULES) or not launch.has(ENABLE):
        raise NotApplicable(f"no {MODULES} with {ENABLE}")
    limit = launch.number(RANK) or DEFAULT_RANK
    for adapter in model.lora_adapters:
        yield from _one(adapter, limit, model, snapshot)
    unread = [a.path for a in model.lora_adapters if a.rank is None and a.problem is None]
    if unread:
        raise NotKnown(f"the adapter {unread[0]} is not a folder here")
    if any(a.tensor_modules for a in model.lora_adapters) and model.tensor_names is None:
        raise NotKnown("the modules of the model are not known: not all of its headers were read")


def _one(adapter: LoraAdapter, limit: int, model: Model, snapshot: Snapshot) -> Iterator[Finding]:
    if adapter.problem is not None:
        yield _unreadable(adapter)
        return
    if adapter.rank is not None and adapter.rank > limit:
        yield _rank(adapter, adapter.rank, limit, snapshot.launch)
    if refused := _refused(adapter, snapshot):
        yield error(
            "lora-config",
            f"Adapter {adapter.name}: vLLM does not support {', '.join(refused)}",
            evidence=(f"adapter_config.json in {adapter.path}: {', '.join(refused)}",),
            fixes=(Fix(title="Merge the adapter into the model with PEFT, and serve the result"),),
        )
    if (modules := _foreign_modules(adapter, model)) and adapter.tensor_modules:
        yield error(
            "lora-config",
            f"Adapter {adapter.name} is for modules that {model.given} does not have: {', '.join(modules[:4])}",
            evidence=(
                f"weights in {adapter.path} for {', '.join(adapter.tensor_modules[:12])}",
                f"its base model: {adapter.base_model or 'not named'}",
            ),
            fixes=(Fix(title="Take the adapter that was trained on this model"),),
        )


def _unreadable(adapter: LoraAdapter) -> Finding:
    problem = adapter.problem
    assert problem is not None  # the caller asked
    report = warning if problem.kind == "unreadable" else error
    return report(
        "lora-config",
        f"Adapter {adapter.name}: no whole adapter at {adapter.path}",
        evidence=(f"{problem.file}: {problem.detail}",),
        fixes=(Fix(title="Give the folder that holds adapter_config.json and adapter_model.safetensors"),),
    )


def _rank(adapter: LoraAdapter, rank: int, limit: int, launch: Launch | None) -> Finding:
    wanted = next((r for r in RANKS if r >= rank), None)
    fixes = [Fix(title="Train or convert the adapter to a lower rank")]
    if wanted is not None:
        edit = LaunchEdit(set={RANK: str(wanted)})
        fixes.insert(0, Fix(title=f"Allow rank {wanted}: {RANK} {wanted}", launch=edit, automatic=True))
    given = launch is not None and launch.has(RANK)
    return error(
        "lora-config",
        f"Adapter {adapter.name} has rank {rank}, the launch allows {limit}",
        evidence=(
            f"adapter_config.json in {adapter.path}: r {rank}",
            f"{RANK} {limit}" + ("" if given else " (the default)"),
        ),
        fixes=tuple(fixes),
    )


def _refused(adapter: LoraAdapter, snapshot: Snapshot) -> tuple[str, ...]:
    if not adapter.unsupported:
        return ()
    new = not is_at_least(planned_release(snapshot), "0.32.0")
    return tuple(f for f in adapter.unsupported if not (new and f.startswith(NEW_REFUSALS)))


def _foreign_modules(adapter: LoraAdapter, model: Model) -> tuple[str, ...]:
    """Modules with weights in the adapter that no tensor of the model belongs to."""
    if adapter.tensor_modules is None or model.tensor_names is None:
        return ()
    own = {part for name in model.tensor_names for part in name.split(".")}
    return tuple(m for m in adapter.tensor_modules if m not in own and m not in RENAMED)
