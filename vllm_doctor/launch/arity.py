"""How many words each flag of `vllm serve` takes and how they are read, for parsing without knowing the release.

SOURCE: the parser of vLLM 0.32.0 itself, built in its own interpreter (`make_arg_parser`): option strings, nargs and
type of all its actions; flags that earlier releases had and 0.32.0 has not: `add_argument` calls and config fields of
their sources.
"""

from enum import Enum
from functools import lru_cache


class Arity(Enum):
    """How many words a flag takes."""

    NONE = "none"
    ONE = "one"
    OPTIONAL = "optional"
    MANY = "many"


class Kind(Enum):
    """How a flag's word is read; `AUTO` is a human-readable integer, `auto` or -1."""

    SWITCH = "switch"
    INTEGER = "integer"
    HUMAN = "human"
    AUTO = "auto"
    FLOAT = "float"
    JSON = "json"
    TEXT_OR_JSON = "text or json"
    TEXT = "text"


def _names(text: str) -> frozenset[str]:
    return frozenset(f"--{word}" for word in text.split())


# Take no word.
SWITCHES = _names(
    """
    aggregate-engine-logging allow-credentials allow-deprecated-quantization async-scheduling
    cohere-is-reasoning-model cudagraph-metrics data-parallel-external-lb data-parallel-hybrid-lb
    data-parallel-multi-port-external-lb dcp-q-replicate disable-cascade-attn disable-chunked-mm-input
    disable-custom-all-reduce disable-fastapi-docs disable-hybrid-kv-cache-manager disable-log-stats
    disable-nccl-for-dp-synchronization disable-sliding-window disable-uvicorn-access-log enable-auto-tool-choice
    enable-batch-sharded-sampling enable-chunked-prefill enable-cumem-allocator enable-dbo enable-elastic-ep
    enable-ep-weight-filter enable-eplb enable-expert-parallel enable-fault-tolerance
    enable-flash-late-interaction enable-flashinfer-autotune enable-force-include-usage enable-hc-sp
    enable-layerwise-nvtx-tracing enable-log-deltas enable-log-outputs enable-log-requests
    enable-logging-iteration-details enable-lora enable-mamba-cache-stochastic-rounding
    enable-mamba-shared-prefix-checkpoint enable-mfu-metrics enable-mixed-moe-lora-format enable-mm-embeds
    enable-moe-shared-loras enable-nccl-comm-suspend enable-offline-docs enable-per-request-metrics
    enable-prefix-caching enable-prompt-embeds enable-prompt-tokens-details enable-request-id-headers
    enable-return-routed-experts enable-scale-out enable-server-load-tracking enable-shm-tensor-arena
    enable-sleep-mode enable-ssl-refresh enable-tokenizer-info-endpoint enable-tower-connector-lora
    enable-trace-replay enforce-eager exclude-tools-when-tool-choice-none fail-on-environ-validation
    fully-sharded-loras grpc headless interleave-mm-strings jit-monitor-verbose kv-cache-metrics
    kv-sharing-fast-prefill language-model-only log-error-stack long-prefill-token-threshold-adaptive
    mm-device-do-normalize mm-encoder-only numa-bind ray-workers-use-nsight return-sampling-mask
    return-tokens-as-token-ids scheduler-reserve-full-isl skip-mm-profiling skip-tokenizer-init
    sleep-mode-offload-cudagraph specialize-active-lora swa-bounded-replay tokens-only trust-remote-code
    trust-request-chat-template trust-request-mm-kwargs use-fp64-gumbel use-replayssm use-tqdm-on-load
    """
)

# int()
INTEGERS = _names(
    """
    api-server-count block-size cp-kv-cache-interleave-size cpu-distributed-timeout-seconds
    cudagraph-capture-sizes data-parallel-rank data-parallel-rpc-port data-parallel-size data-parallel-size-local
    data-parallel-start-rank data-parallel-supervisor-port dbo-decode-token-threshold dbo-prefill-token-threshold
    dcp-kv-cache-interleave-size decode-context-parallel-size distributed-timeout-seconds
    dp-supervisor-probe-failure-threshold dp-sync-interval elastic-ep-max-dp-size grpc-port h11-max-header-count
    h11-max-incomplete-event-size long-prefill-token-threshold mamba-block-size mamba-cache-philox-rounds
    master-port max-cpu-loras max-cudagraph-capture-size max-log-len max-logprobs max-lora-cls-labels
    max-lora-rank max-loras max-num-active-seqs max-num-queued-reqs max-num-seqs max-parallel-loading-workers
    mm-shm-cache-max-object-size-mb nnodes node-rank num-gpu-blocks-override numa-bind-nodes offload-group-size
    offload-num-in-group offload-prefetch-step pipeline-parallel-size port prefill-context-parallel-size
    prefill-schedule-interval prefix-cache-retention-interval prefix-match-unit renderer-num-workers
    replayssm-buffer-len safetensors-prefetch-num-threads seed shutdown-timeout spec-tokens
    sse-keep-alive-interval ssl-cert-reqs stream-interval tensor-parallel-size ubatch-size
    """
)

# human_readable_int(): 4k, 16G
HUMAN_INTEGERS = _names(
    """
    kv-cache-memory-bytes max-num-batched-tokens max-num-queued-tokens max-num-scheduled-tokens
    safetensors-prefetch-block-size
    """
)

# float()
FLOATS = _names(
    """
    cpu-offload-gb dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s gpu-memory-utilization
    kv-cache-metrics-sample kv-offloading-size mm-encoder-fp8-scale-save-margin mm-ipc-gpu-memory-gb
    mm-processor-cache-gb video-pruning-rate watermark
    """
)

# A JSON document, or dotted keys.
JSON = _names(
    """
    allowed-headers allowed-methods allowed-origins attention-config aux-output-config compilation-config
    default-chat-template-kwargs diffusion-config ec-manager-config ec-transfer-config engram-config eplb-config
    fault-tolerance-config ir-op-priority kernel-config kv-events-config kv-transfer-config limit-mm-per-prompt
    logging-config media-io-kwargs model-class-overrides override-generation-config pooler-config profiler-config
    quantization-config reasoning-config speculative-config structured-outputs-config watermark-config
    weight-transfer-config
    """
)

# JSON where it stands in braces, else text.
TEXT_OR_JSON = _names(
    """
    additional-config hf-overrides model-loader-extra-config pt-load-map-location
    """
)

# Any text, or one of a list of choices.
TEXTS = _names(
    """
    all2all-backend allowed-local-media-path allowed-media-domains anthropic-disabled-thinking-effort api-key
    attention-backend chat-template chat-template-content-format code-revision cohere-format
    collect-detailed-traces config config-format convert cpu-offload-params custom-histogram-buckets
    data-parallel-address data-parallel-backend dcp-comm-backend default-mm-loras device-ids
    disable-access-log-for-endpoints distributed-executor-backend download-dir dtype expert-placement-strategy
    fingerprint-mode fingerprint-value gdn-prefill-backend generation-config hf-config-path hf-token host
    ignore-patterns io-processor-plugin jit-monitor-mode kda-decode-backend kda-prefill-backend kv-cache-dtype
    kv-cache-dtype-skip-layers kv-offloading-backend linear-backend load-format log-config-file log-level
    logits-processors logprobs-mode lora-dtype lora-modules lora-target-modules mamba-backend mamba-cache-dtype
    mamba-cache-mode mamba-ssm-cache-dtype mamba-ssu-algorithm master-addr middleware mm-encoder-attn-backend
    mm-encoder-attn-dtype mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-path mm-encoder-tp-mode
    mm-hasher-algorithm mm-processor-cache-type mm-processor-device mm-processor-kwargs mm-tensor-ipc model
    model-impl moe-backend numa-bind-cpus offload-backend offload-params optimization-level otlp-traces-endpoint
    per-request-spec-decode-metrics performance-mode prefix-caching-hash-algo quantization reasoning-parser
    reasoning-parser-plugin response-role revision root-path runner safetensors-load-strategy scheduler-cls
    scheduling-policy served-model-name show-hidden-metrics-for-version sleep-preserve-parameter-names
    sparse-indexer-topk-backend spec-method spec-model ssl-ca-certs ssl-certfile ssl-ciphers ssl-keyfile tokenizer
    tokenizer-mode tokenizer-revision tool-call-parser tool-parser-plugin tool-server tool-strict-level uds
    uvicorn-log-level video-pruning-method worker-cls worker-extension-cls
    """
)

# nargs="+": every word up to the next flag, the model too where it comes after.
LISTS = _names(
    """
    allowed-media-domains api-key collect-detailed-traces cpu-offload-params cudagraph-capture-sizes
    ignore-patterns kv-cache-dtype-skip-layers logits-processors lora-modules lora-target-modules numa-bind-cpus
    numa-bind-nodes offload-params served-model-name sleep-preserve-parameter-names
    """
)

# nargs="?"
OPTIONALS = _names("hf-token")

# Gone from 0.32.0; took no word.
RETIRED_SWITCHES = _names(
    """
    calculate-kv-scales disable-async-output-proc disable-frontend-multiprocessing disable-image-processor
    disable-log-requests disable-logprobs-during-spec-decoding disable-mm-preprocessor-cache
    enable-bf16x3-router-gemm enable-lora-bias enable-mamba-fine-grained-prefix-cache
    enable-multimodal-encoder-data-parallel enable-prompt-adapter enable-reasoning engine-use-ray
    eplb-log-balancedness expand-tools-even-if-tool-choice-none guided-decoding-disable-additional-properties
    guided-decoding-disable-any-whitespace guided-decoding-disable-fallback mm-cache-preprocessor
    multi-step-stream-outputs speculative-disable-mqa-scorer use-gpu-for-pooling-score use-v2-block-manager
    worker-use-ray
    """
)

# Gone from 0.32.0; took one word.
RETIRED_TEXTS = _names(
    """
    chat-template-text-format cuda-graph-sizes device eplb-step-interval eplb-window-size forced-num-gpu-blocks
    guided-decoding-backend image-feature-size image-input-shape image-input-type image-processor
    image-processor-revision image-token-id logits-processor-pattern lora-extra-vocab-size
    max-context-len-to-capture max-long-partial-prefills max-num-partial-prefills max-prompt-adapter-token
    max-prompt-adapters max-seq-len-to-capture ngram-prompt-lookup-max ngram-prompt-lookup-min num-lookahead-slots
    num-redundant-experts num-scheduler-steps num-speculative-tokens override-attention-dtype
    override-neuron-config override-pooler-config preemption-mode qlora-adapter-name-or-path
    quantization-param-path rope-scaling rope-theta scheduler-delay-factor spec-decoding-acceptance-method
    speculative-disable-by-batch-size speculative-draft-tensor-parallel-size speculative-max-model-len
    speculative-model speculative-model-quantization swap-space task tokenizer-pool-extra-config
    tokenizer-pool-size tokenizer-pool-type typical-acceptance-sampler-posterior-alpha
    typical-acceptance-sampler-posterior-threshold
    """
)

# Gone from 0.32.0; took several words.
RETIRED_LISTS = _names("prompt-adapters long-lora-scaling-factors cuda-graph-sizes")

SHORT = {
    "-asc": "--api-server-count",
    "-q": "--quantization",
    "-pp": "--pipeline-parallel-size",
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-tp": "--tensor-parallel-size",
    "-dcp": "--decode-context-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
    "-dp": "--data-parallel-size",
    "-dpn": "--data-parallel-rank",
    "-dpr": "--data-parallel-start-rank",
    "-dpl": "--data-parallel-size-local",
    "-dpa": "--data-parallel-address",
    "-dpp": "--data-parallel-rpc-port",
    "-dpb": "--data-parallel-backend",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpe": "--data-parallel-external-lb",
    "-dpm": "--data-parallel-multi-port-external-lb",
    "-ep": "--enable-expert-parallel",
    "-sc": "--speculative-config",
    "-dc": "--diffusion-config",
    "-cc": "--compilation-config",
    "-ac": "--attention-config",
}

ALIASES = {"--device-memory-utilization": "--gpu-memory-utilization"}

# `store_true`: without a `--no-` form.
NOT_NEGATABLE = _names("headless grpc data-parallel-multi-port-external-lb disable-log-stats aggregate-engine-logging")

HELP = frozenset({"--help", "--version", "-h", "-v"})


@lru_cache(maxsize=1)
def current_names() -> frozenset[str]:
    """Every long option string of 0.32.0, with the `--no-` forms."""
    flags = (
        SWITCHES | INTEGERS | HUMAN_INTEGERS | FLOATS | JSON | TEXT_OR_JSON | TEXTS | {"--max-model-len"} | set(ALIASES)
    )
    return flags | {f"--no-{name[2:]}" for name in SWITCHES - NOT_NEGATABLE} | {"--help"}


def arity(name: str) -> Arity | None:
    """How many words the flag of that canonical name takes; None for a name that no release is known to have had."""
    if name.startswith("--no-") and f"--{name[5:]}" in SWITCHES:
        return Arity.NONE
    if name in SWITCHES or name in RETIRED_SWITCHES or name in HELP:
        return Arity.NONE
    if name in LISTS or name in RETIRED_LISTS:
        return Arity.MANY
    if name in OPTIONALS:
        return Arity.OPTIONAL
    return Arity.ONE if name in current_names() or name in RETIRED_TEXTS else None


_KINDS = (
    (Kind.SWITCH, SWITCHES | RETIRED_SWITCHES),
    (Kind.INTEGER, INTEGERS),
    (Kind.HUMAN, HUMAN_INTEGERS),
    (Kind.AUTO, frozenset({"--max-model-len"})),
    (Kind.FLOAT, FLOATS),
    (Kind.JSON, JSON),
    (Kind.TEXT_OR_JSON, TEXT_OR_JSON),
    (Kind.TEXT, TEXTS),
)


def kind(name: str) -> Kind | None:
    """How 0.32.0 reads the words of the flag; None for one that it has not."""
    return next((kind for kind, names in _KINDS if name in names), None)
