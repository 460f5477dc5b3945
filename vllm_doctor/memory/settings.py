"""The settings of a launch that move memory, as vLLM reads its flags."""

from collections.abc import Mapping
from typing import Any

import msgspec

from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Launch
from vllm_doctor.facts.launch import integer
from vllm_doctor.memory.facts import DraftModel, LaunchSettings

# Beyond any cluster, context and card there is; a flag that says more is a slip of the hand.
LARGEST_PARALLEL = 2**14
LARGEST_LENGTH = 2**31
LARGEST_BYTES = 2**50
LARGEST_GIB = 2**20
LARGEST_KEPT = 2**11


def read_settings(launch: Launch | None) -> LaunchSettings:
    """The settings of a launch; vLLM's defaults without one.

    Raises DoctorError for a value that vLLM would refuse: no number, negative, or beyond any machine.
    """
    return LaunchSettings() if launch is None else _Reader(launch).settings()


_POOLING_TASKS = ("embed", "embedding", "classify", "score", "reward")


class _Reader:
    """Reads the flags of one launch."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def settings(self) -> LaunchSettings:
        number, text = self._number, self._launch.value
        compilation = self._object("--compilation-config")
        attention = self._object("--attention-config")
        return LaunchSettings(
            tensor_parallel_size=number("--tensor-parallel-size", 1, 1, LARGEST_PARALLEL),
            pipeline_parallel_size=number("--pipeline-parallel-size", 1, 1, LARGEST_PARALLEL),
            data_parallel_size=number("--data-parallel-size", 1, 1, LARGEST_PARALLEL),
            decode_context_parallel_size=number("--decode-context-parallel-size", 1, 1, LARGEST_PARALLEL),
            expert_parallel=self._switch("--enable-expert-parallel") is True,
            max_model_len=self._length(),
            any_max_model_len=self._any_length(),
            gpu_memory_utilization=self._fraction("--gpu-memory-utilization"),
            kv_cache_memory_bytes=self._maybe("--kv-cache-memory-bytes", LARGEST_BYTES)
            or self._maybe("--kv-cache-memory", LARGEST_BYTES),
            num_gpu_blocks_override=self._maybe("--num-gpu-blocks-override", LARGEST_LENGTH),
            kv_cache_dtype=text("--kv-cache-dtype") or "auto",
            block_size=self._maybe("--block-size", 2**20),
            dtype=text("--dtype") or "auto",
            quantization=_named(text("--quantization")),
            max_num_seqs=self._maybe("--max-num-seqs", LARGEST_LENGTH),
            max_num_batched_tokens=self._maybe("--max-num-batched-tokens", LARGEST_LENGTH),
            enforce_eager=self._switch("--enforce-eager") is True,
            cpu_offload_gb=self._gibibytes("--cpu-offload-gb"),
            pooling=self._pooling(),
            enable_lora=self._switch("--enable-lora") is True,
            max_loras=number("--max-loras", 1, 1, 2**16),
            max_lora_rank=number("--max-lora-rank", 16, 1, 2**16),
            fully_sharded_loras=self._switch("--fully-sharded-loras") is True,
            limit_mm_per_prompt=self._limits(),
            language_model_only=self._switch("--language-model-only") is True,
            mm_encoder_tp_mode=self._launch.value("--mm-encoder-tp-mode") or "weights",
            skip_mm_profiling=self._switch("--skip-mm-profiling") is True,
            draft=self._draft(),
            prefix_caching=self._switch("--enable-prefix-caching"),
            chunked_prefill=self._switch("--enable-chunked-prefill"),
            async_scheduling=self._switch("--async-scheduling"),
            disable_hybrid_kv_cache_manager=self._switch("--disable-hybrid-kv-cache-manager") is True,
            mamba_cache_dtype=text("--mamba-cache-dtype") or "auto",
            mamba_ssm_cache_dtype=text("--mamba-ssm-cache-dtype") or "auto",
            mamba_cache_mode=text("--mamba-cache-mode"),
            mamba_block_size=self._maybe("--mamba-block-size", LARGEST_LENGTH),
            gdn_prefill_backend=(text("--gdn-prefill-backend") or "auto").lower(),
            attention_backend=_text(attention.get("backend")) or text("--attention-backend"),
            tables_on_gpu=self._object("--engram-config").get("cpu_offload") is False,
            indexer_fp4=attention.get("indexer_kv_dtype") == "mxfp4" or attention.get("use_fp4_indexer_cache") is True,
            performance_mode=text("--performance-mode"),
            cudagraph_sizes=self._graph_sizes(compilation),
            cudagraph_mode=_text(compilation.get("cudagraph_mode")),
            compilation_level=self._compilation_level(compilation),
            environment={k: v for k, v in self._launch.environment.items() if k.startswith("VLLM_")},
        )

    def _number(self, flag: str, default: int, least: int, most: int) -> int:
        text = self._launch.value(flag)
        if text is None:
            return default
        return _checked(flag, text, integer(text), least, most)

    def _maybe(self, flag: str, most: int) -> int | None:
        text = self._launch.value(flag)
        if text is None or text.lower() in ("auto", "none"):
            return None
        return _checked(flag, text, integer(text), 1, most)

    def _length(self) -> int | None:
        """`--max-model-len`: a number, or -1 for `auto` (0.14 and later)."""
        text = self._launch.value("--max-model-len")
        if text is None:
            return None
        if text.strip().lower() in ("auto", "-1"):
            return -1
        return _checked("--max-model-len", text, integer(text), 1, LARGEST_LENGTH)

    def _any_length(self) -> bool:
        """Whether the length is not held against the config as it is (vllm/envs.py; --rope-scaling to 0.11)."""
        allowed = self._launch.environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0").strip().lower()
        return allowed in ("1", "true") or self._launch.has("--rope-scaling")

    def _fraction(self, flag: str) -> float | None:
        """A share of the card: above 0, at most 1 (vLLM 0.32 config/cache.py, gt=0, le=1)."""
        text = self._launch.value(flag)
        if text is None:
            return None
        value = _float(flag, text)
        if not 0 < value <= 1:
            raise DoctorError(f"{flag} {text}: not between 0 and 1", "give a fraction of the card, such as 0.9")
        return value

    def _gibibytes(self, flag: str) -> float:
        text = self._launch.value(flag)
        if text is None:
            return 0.0
        value = _float(flag, text)
        if not 0 <= value <= LARGEST_GIB:
            raise DoctorError(f"{flag} {text}: no size in GiB", "give a number of GiB from 0 on")
        return value

    def _switch(self, flag: str) -> bool | None:
        """True or False where the flag or its `--no-` form is given, the last one counts; None where neither is."""
        found: bool | None = None
        negative = f"--no-{flag.removeprefix('--')}"
        for use in self._launch.flags:
            if use.name == flag:
                found = (use.value or "true").lower() not in ("false", "0", "no")
                found = found and not use.spelled.startswith("--no-")
            elif use.name == negative:
                found = False
        return found

    def _object(self, flag: str) -> Mapping[str, Any]:
        """A flag's JSON object with what its dotted spellings add; empty where there is none or it is none."""
        text = self._launch.value(flag)
        merged: dict[str, Any] = _json(text) if text else {}
        for use in self._launch.flags:
            if use.name.startswith(f"{flag}.") and use.value is not None:
                merged[use.name.removeprefix(f"{flag}.")] = _scalar(use.value)
        return merged

    def _pooling(self) -> bool:
        """Whether the model is served for vectors or scores (0.32 config/model.py; `--task` to 0.12)."""
        runner, task = self._launch.value("--runner"), self._launch.value("--task")
        converted = self._launch.value("--convert")
        return runner == "pooling" or task in _POOLING_TASKS or converted in ("embed", "classify", "reward")

    def _limits(self) -> Mapping[str, int] | None:
        """`--limit-mm-per-prompt`: JSON, dotted (`.image 2`), or `image=2` as older releases had."""
        given = self._object("--limit-mm-per-prompt")
        text = self._launch.value("--limit-mm-per-prompt")
        if not given and text and "=" in text:
            given = {k.strip(): _scalar(v) for k, _, v in (part.partition("=") for part in text.split(",")[:32])}
        limits: dict[str, int] = {}
        for kind, value in given.items():
            count = value.get("count") if isinstance(value, dict) else value
            if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**20:
                limits[kind] = count
        return limits if given else None

    def _draft(self) -> DraftModel | None:
        given = self._object("--speculative-config")
        model = _text(given.get("model")) or self._launch.value("--speculative-model")
        method = _text(given.get("method"))
        tokens = given.get("num_speculative_tokens")
        if tokens is None and (text := self._launch.value("--num-speculative-tokens")) is not None:
            tokens = integer(text)
        if model is None and method is None:
            return None
        count = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= 4096 else 0
        size = given.get("draft_tensor_parallel_size")
        ranks = size if isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= LARGEST_PARALLEL else None
        kept = _hidden_states(given) if method == "extract_hidden_states" else 0
        return DraftModel(method=method, model=model, tokens=count, tensor_parallel_size=ranks, hidden_states=kept)

    def _graph_sizes(self, compilation: Mapping[str, Any]) -> tuple[int, ...] | None:
        listed = compilation.get("cudagraph_capture_sizes")
        if listed is None:
            uses = self._launch.uses("--cuda-graph-sizes") or self._launch.uses("--cudagraph-capture-sizes")
            listed = [integer(v) for v in uses[-1].values] if uses else None
        if not isinstance(listed, list):
            return None
        return tuple(v for v in listed[:4096] if isinstance(v, int) and not isinstance(v, bool) and 0 < v < 2**20)

    def _compilation_level(self, compilation: Mapping[str, Any]) -> int | None:
        level = compilation.get("mode", compilation.get("level"))
        if level is None:
            text = self._launch.value("--compilation-config") or self._launch.value("-O")
            level = integer(text) if text is not None and text.isdecimal() else None
        return level if isinstance(level, int) and not isinstance(level, bool) and 0 <= level <= 3 else None


def _hidden_states(given: Mapping[str, Any]) -> int:
    """The layers whose hidden states are kept (0.32 model_executor/models/extract_hidden_states.py)."""
    values: object = given
    for key in ("draft_model_config", "hf_config", "eagle_aux_hidden_state_layer_ids"):
        values = values.get(key) if isinstance(values, dict) else None
    return min(len(values), LARGEST_KEPT) if isinstance(values, list) else 0


def _named(text: str | None) -> str | None:
    return None if text is None or text.lower() in ("none", "null") else text.lower()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _checked(flag: str, text: str, value: int | None, least: int, most: int) -> int:
    if value is None:
        raise DoctorError(f"{flag} {text[:60]}: not a whole number", "give a number such as 4096 or 4k")
    if not least <= value <= most:
        raise DoctorError(
            f"{flag} {text[:60]}: not between {least} and {most}", "give a number that a machine can have"
        )
    return value


def _float(flag: str, text: str) -> float:
    try:
        value = float(text) if len(text) < 40 else float("nan")
    except ValueError:
        value = float("nan")
    if value != value:
        raise DoctorError(f"{flag} {text[:60]}: not a number", "give a number such as 0.9")
    return value


def _scalar(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text


def _json(text: str) -> dict[str, Any]:
    value = _scalar(text) if len(text) <= 1_000_000 else None
    return value if isinstance(value, dict) else {}
