"""The check of flags that the build of vLLM or the model cannot follow."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, check, known
from vllm_doctor.facts import Launch, Model
from vllm_doctor.facts.launch import integer
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launching import numbers, planned_version, switched

# The releases whose sources were read for the rules of this file.
_READ_FROM = (0, 32)
# SOURCE: `is_sleep_mode_available` of vllm/platforms/interface.py, the EPLB check of vllm/config/parallel.py
# (`_validate_parallel_config`) and `OffloadingConnector`'s handlers in vllm/v1/kv_offload, all of 0.32.0, tried there.
_NOT_ON_CPU = {
    "--enable-sleep-mode": "Sleep mode is not supported on current platform",
    "--enable-eplb": "Expert parallelism load balancing is only supported on CUDA devices or ROCm devices",
    "--kv-offloading-size": "CPU Offloading is currently only supported on CUDA-alike and XPU GPUs",
}
# `CPUAttentionBackend.get_supported_kernel_block_sizes` of vllm/v1/attention/backends/cpu_attn.py, 0.32.0.
_CPU_BLOCK = 32
# Types of which no checkpoint has experts (their config classes in transformers 5 have no key for them).
_DENSE_TYPES = """
    llama mistral qwen2 qwen3 gemma gemma2 gemma3 gemma3_text phi phi3 starcoder2 stablelm gpt2 gptj gpt_neox opt bloom
    falcon olmo olmo2 cohere cohere2 granite internlm2 glm glm4 exaone4 smollm3
"""
_DENSE = frozenset(_DENSE_TYPES.split())


@check("platform-flag", causes=("flag-conflict", "attention-backend"), needs=("launch",))
def platform_flag(snapshot: Snapshot) -> Iterator[Finding]:
    """A flag that this build of vLLM, or this model, cannot follow.

    Sleep mode, expert load balancing and the offloading of the KV cache on a CPU, block sizes that the CPU's attention
    does not have, expert parallelism for a model without experts.

    Why: the flag is legal, so that the parser takes it; vLLM ends with a ValidationError, or in the worker.
    Fix: drop the flag.
    """
    launch = snapshot.launch
    assert launch is not None
    asked = [name for name in _NOT_ON_CPU if _is_on(launch, name)]
    experts = switched(launch, "enable-expert-parallel") is True
    block = integer(launch.value("--block-size") or "")
    if not asked and not experts and block is None:
        raise NotApplicable("the launch has none of the flags that depend on the platform or the model")
    if numbers(planned_version(snapshot))[:2] < _READ_FROM:
        raise NotApplicable("the rules are those of vLLM 0.32 and newer")
    if snapshot.platform == "cpu":
        yield from (_absent(launch, name) for name in asked)
        if block is not None and block > 0 and block % _CPU_BLOCK and not _is_latent(snapshot):
            yield _block(block)
    if experts and isinstance(snapshot.model, Model):
        yield from _experts(snapshot.model)


def _is_on(launch: Launch, name: str) -> bool:
    """Whether a switch is on, or a size is given that is not 0."""
    if name == "--kv-offloading-size":
        return launch.has(name) and launch.value(name) not in ("0", "0.0", "None", "")
    return switched(launch, name[2:]) is True


def _absent(launch: Launch, name: str) -> Finding:
    shown = f"{name} {launch.value(name) or ''}".strip()
    return error(
        "flag-conflict",
        f"{name} does not work with a CPU build of vLLM",
        evidence=(shown, f"vLLM ends with: {_NOT_ON_CPU[name]}"),
        fixes=(Fix(title=f"Drop {name}", launch=LaunchEdit(unset=(name,)), automatic=True),),
    )


def _is_latent(snapshot: Snapshot) -> bool:
    """Whether the model has latent attention, or may have: its CPU kernels have block sizes of their own."""
    return not isinstance(snapshot.model, Model) or isinstance(
        known(snapshot.model.config).text().get("kv_lora_rank"), int
    )


def _block(size: int) -> Finding:
    fits = max(_CPU_BLOCK, round(size / _CPU_BLOCK) * _CPU_BLOCK)
    return error(
        "attention-backend",
        f"--block-size {size} is no multiple of {_CPU_BLOCK}, which the CPU's attention needs",
        evidence=(f"--block-size {size}", f"vLLM ends with: No common block size for {size} (CPU_ATTN: ...)"),
        fixes=(
            Fix(title="Leave the block size to vLLM", launch=LaunchEdit(unset=("--block-size",)), automatic=True),
            Fix(title=f"Or write --block-size {fits}", launch=LaunchEdit(set={"--block-size": str(fits)})),
        ),
    )


def _experts(model: Model) -> Iterator[Finding]:
    """SOURCE: `_verify_with_expert_parallelism` of vllm/config/model.py, 0.32.0."""
    config = known(model.config)
    text = config.text()
    if config.text_model_type not in _DENSE or any("expert" in key or "moe" in key for key in text):
        return
    flag = "--enable-expert-parallel"
    yield error(
        "flag-conflict",
        f"{flag} needs a model with experts, and {model.given} has none",
        evidence=(f"config.json: model_type {config.text_model_type}, no key of experts", flag),
        fixes=(Fix(title=f"Drop {flag}", launch=LaunchEdit(unset=(flag,)), automatic=True),),
    )
