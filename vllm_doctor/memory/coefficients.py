"""The fitted constants of the memory model, with the rows that they come from and how far those lie off.

Written by scripts/fit_memory.py; do not edit by hand.
"""

DATE = "2026-11-22"
SOURCE = "35 start-ups of vLLM 0.19.0 on H100 80GB (accuracy study of llm-d-planner, Apache-2.0), development rows"

# Sampler peak in units of max_num_seqs x vocabulary x 4 bytes (0.18 to 0.21: Triton top-k/top-p, no sort), and by how
# much of the whole peak a row differs at most.
SAMPLER_UNITS = 3.735
SAMPLER_RESIDUAL = 0.008

# What a multimodal model holds beside it in the profile run, and what the forward pass takes beyond its formula.
MULTIMODAL_BYTES = 136614258
FORWARD_EXTRA_BYTES = 16190013

# Memory outside of torch's allocator after the profile run: one GPU, tensor parallel ranks, pipeline stages.
NON_TORCH_SINGLE_BYTES = 268435456
NON_TORCH_TENSOR_PARALLEL_BYTES = 2244120412
NON_TORCH_PIPELINE_BYTES = 210464604

# CUDA graphs in bytes: a constant, per layer, and once more for mixture-of-experts models; then what vLLM estimates.
GRAPH_BYTES = 697826060
GRAPH_LAYER_BYTES = 8412018
GRAPH_EXPERTS_BYTES = 723243152
GRAPH_ESTIMATE_BYTES = 398207144
GRAPH_ESTIMATE_LAYER_BYTES = 13206400
GRAPH_ESTIMATE_EXPERTS_BYTES = 630347005

# What of an idle card is not free at the baseline: the CUDA context, and with NCCL's groups.
CONTEXT_BYTES = 547608330
CONTEXT_GROUPS_BYTES = 1621350154
