"""The fitted constants of the memory model, with the rows that they come from and how far those lie off.

Written by scripts/fit_memory.py; do not edit by hand.
"""

DATE = "2026-11-22"
SOURCE = "33 start-ups of vLLM 0.19.0 on H100 80GB (accuracy study of llm-d-planner, Apache-2.0), development rows"

# Sampler peak in units of max_num_seqs x vocabulary x 4 bytes (0.18 to 0.21: Triton top-k/top-p, no sort).
SAMPLER_UNITS = 3.74
SAMPLER_RESIDUAL = 0.02

# What a multimodal model holds beside it in the profile run, and what the forward pass takes beyond its formula.
MULTIMODAL_BYTES = 85899346
FORWARD_EXTRA_BYTES = 16106127

# Memory outside of torch's allocator after the profile run: one GPU, tensor parallel ranks, pipeline stages.
NON_TORCH_SINGLE_BYTES = 268435456
NON_TORCH_TENSOR_PARALLEL_BYTES = 2254857830
NON_TORCH_PIPELINE_BYTES = 214748365

# CUDA graphs in bytes: a constant, per layer, and once more for mixture-of-experts models; then what vLLM estimates.
GRAPH_BYTES = 429496729
GRAPH_LAYER_BYTES = 14495514
GRAPH_EXPERTS_BYTES = 805306368
GRAPH_ESTIMATE_BYTES = 429496729
GRAPH_ESTIMATE_LAYER_BYTES = 12884901
GRAPH_ESTIMATE_EXPERTS_BYTES = 644245094

# Free of an H100's total memory at the baseline: the CUDA context, and with NCCL's groups.
CONTEXT_BYTES = 547608330
CONTEXT_GROUPS_BYTES = 1621350154
