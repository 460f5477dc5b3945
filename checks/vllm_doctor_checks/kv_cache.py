"""The check of a KV cache whose size the launch fixes: whether one request of the longest context fits."""

from collections.abc import Iterator

from msgspec import Struct

from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Launch, ModelConfig
from vllm_doctor.facts.launch import integer
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launch_values import GIB
from vllm_doctor_checks.launching import numbers, planned_version
from vllm_doctor_checks.model_facts import config_of, launch_of
from vllm_doctor_checks.model_limits import derived_length
from vllm_doctor_checks.model_weights import ALIKE
from vllm_doctor_checks.parallel import Sizes

LENGTH, BLOCKS, BYTES, SPACE = (
    "--max-model-len",
    "--num-gpu-blocks-override",
    "--kv-cache-memory-bytes",
    "VLLM_CPU_KVCACHE_SPACE",
)
# vllm/platforms/cpu.py, 0.32.0; GPU backends have other sizes, of which none is larger (v1/attention/backends).
_CPU_BLOCK, _LARGEST_BLOCK = 128, 256
# The engine that compares the two (V1, vllm/v1/core/kv_cache_utils.py `check_enough_kv_cache_memory`) is the only one
# from here on.
_COMPARED_FROM = (0, 11)
_ELEMENT_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}


class Fixed(Struct, frozen=True):
    """A size that the launch gives: in tokens, as it stands there."""

    tokens: int
    shown: str
    names: tuple[str, ...]


@check("kv-cache-size", causes=("oom-kv",), needs=("launch", "model"))
def kv_cache_size(snapshot: Snapshot) -> Iterator[Finding]:
    """The KV cache has a fixed size in which not even one request of the longest context fits.

    `--num-gpu-blocks-override`, `--kv-cache-memory-bytes`, or VLLM_CPU_KVCACHE_SPACE on a CPU, against
    `--max-model-len` (or the context of the model).

    Why: vLLM ends with "To serve at least one request with the models's max seq len (N), ... GiB KV cache is needed",
    after the weights are loaded.
    Fix: a smaller `--max-model-len`, or a larger cache.
    """
    launch = launch_of(snapshot)
    if not any(launch.has(name) for name in (BLOCKS, BYTES)) and snapshot.platform != "cpu":
        raise NotApplicable("the launch fixes no size of the KV cache")
    if numbers(planned_version(snapshot))[:2] < _COMPARED_FROM:
        raise NotApplicable("this vLLM has the older engine, which counts in another way")
    config = config_of(snapshot)
    if ALIKE.isdisjoint(config.architectures) or _slides(config):
        raise NotApplicable("not all layers of this model keep keys and values of the whole context")
    asked = launch.value(LENGTH)
    length = integer(asked) if asked is not None else derived_length(config, launch)[0]
    if length is None or length <= 0:
        raise NotApplicable(f"{LENGTH} {asked} is fitted to the cache by vLLM")
    fixed = _by_blocks(snapshot, launch) or _by_bytes(snapshot, launch, config)
    if fixed is not None and fixed.tokens < length:
        yield _finding(launch, length, fixed)


def _slides(config: ModelConfig) -> bool:
    text = config.text()
    return bool(text.get("sliding_window")) and text.get("use_sliding_window") is not False


def _by_blocks(snapshot: Snapshot, launch: Launch) -> Fixed | None:
    count = launch.number(BLOCKS)
    if count is None:
        return None
    size = launch.number("--block-size") or (_CPU_BLOCK if snapshot.platform == "cpu" else _LARGEST_BLOCK)
    return Fixed(count * size, f"{BLOCKS} {count}, blocks of at most {size} tokens", (BLOCKS,))


def _by_bytes(snapshot: Snapshot, launch: Launch, config: ModelConfig) -> Fixed | None:
    found = _bytes(snapshot, launch)
    if found is None:
        return None
    size, shown, name = found
    sizes = Sizes(launch)
    layers, heads = config.num_hidden_layers, config.num_key_value_heads or config.num_attention_heads
    width = config.head_dim or (config.hidden_size or 0) // (config.num_attention_heads or 1)
    if not layers or not heads or not width:
        raise NotKnown("config.json does not say what a token's keys and values take")
    ranks = min(sizes.tensor, heads) * sizes.pipeline
    token = 2 * layers * heads * width * _element_bytes(launch, config) // ranks
    return Fixed(size // max(1, token), f"{shown}, {token} bytes per token", (name,))


def _bytes(snapshot: Snapshot, launch: Launch) -> tuple[int, str, str] | None:
    """The size in bytes for one worker; on a CPU the variable wins over the flag."""
    if snapshot.platform == "cpu":
        known(snapshot.host)
        space = (snapshot.variables.get(SPACE) or "").strip()
        if space.isascii() and space.isdecimal() and int(space[:6]) > 0:
            return int(space[:6]) * GIB, f"{SPACE}={space}", SPACE
    size = launch.number(BYTES)
    return None if size is None else (size, f"{BYTES} {launch.value(BYTES)}", BYTES)


def _element_bytes(launch: Launch, config: ModelConfig) -> int:
    """Of one element of the cache, at least: what is not known to be wider counts as the narrowest."""
    kind = launch.value("--kv-cache-dtype") or "auto"
    if kind != "auto":
        return _ELEMENT_BYTES.get(kind, 1)
    given = launch.value("--dtype") or "auto"
    stored = given if given != "auto" else (config.dtype or "").removeprefix("torch.")
    # `auto` loads float32 as 16 bit.
    return 4 if given in ("float32", "float") else min(2, _ELEMENT_BYTES.get(stored, 2))


def _finding(launch: Launch, length: int, fixed: Fixed) -> Finding:
    fitting = fixed.tokens // 16 * 16
    shorter = Fix(
        title=f"Serve with {LENGTH} {fitting}", launch=LaunchEdit(set={LENGTH: str(fitting)}), automatic=fitting >= 256
    )
    name = fixed.names[0]
    edit = LaunchEdit(unset=(name,)) if name.startswith("--") else LaunchEdit(env={name: None})
    larger = Fix(title=f"Leave {name} out: vLLM then takes what memory there is", launch=edit, automatic=True)
    return error(
        "oom-kv",
        f"The KV cache holds at most {fixed.tokens} tokens, and one request may have {length}",
        evidence=(f"the longest context: {LENGTH} {launch.value(LENGTH) or 'as the model has it'}", fixed.shown),
        fixes=(larger, shorter) if fitting else (larger,),
    )
