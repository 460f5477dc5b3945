"""Flags of other servers that people bring along.

Source: the command line references of SGLang, text-generation-inference, llama.cpp and TensorRT-LLM.
"""

# Whose a flag is, and vLLM's own for the same; `MODEL` is the first word after `serve`.
OF_OTHERS: dict[str, tuple[str, str]] = {
    "--model-path": ("SGLang", "MODEL"),
    "--model-id": ("text-generation-inference", "MODEL"),
    "--model-name": ("FastChat and llama.cpp", "--served-model-name"),
    "--tp": ("SGLang", "--tensor-parallel-size"),
    "--tp-size": ("SGLang", "--tensor-parallel-size"),
    "--tp_size": ("TensorRT-LLM", "--tensor-parallel-size"),
    "--dp": ("SGLang", "--data-parallel-size"),
    "--dp-size": ("SGLang", "--data-parallel-size"),
    "--pp-size": ("SGLang", "--pipeline-parallel-size"),
    "--mem-fraction-static": ("SGLang", "--gpu-memory-utilization"),
    "--context-length": ("SGLang", "--max-model-len"),
    "--max-running-requests": ("SGLang", "--max-num-seqs"),
    "--chunked-prefill-size": ("SGLang", "--max-num-batched-tokens"),
    "--disable-cuda-graph": ("SGLang", "--enforce-eager"),
    "--num-shard": ("text-generation-inference", "--tensor-parallel-size"),
    "--quantize": ("text-generation-inference", "--quantization"),
    "--max-total-tokens": ("text-generation-inference", "--max-model-len"),
    "--max-input-length": ("text-generation-inference", "--max-model-len"),
    "--max-concurrent-requests": ("text-generation-inference", "--max-num-seqs"),
    "--ctx-size": ("llama.cpp", "--max-model-len"),
    "--parallel": ("llama.cpp", "--max-num-seqs"),
    "--alias": ("llama.cpp", "--served-model-name"),
    "--max-batch-size": ("TensorRT-LLM", "--max-num-seqs"),
    "--max-seq-len": ("TensorRT-LLM", "--max-model-len"),
    "--max-context-length": ("other servers", "--max-model-len"),
    "--gpus": ("docker", "--tensor-parallel-size"),
}
# Flags of theirs that have no counterpart whose value would mean the same, and what vLLM does instead.
OF_OTHERS_ONLY: dict[str, tuple[str, str]] = {
    "--n-gpu-layers": ("llama.cpp", "vLLM puts every layer on the GPUs; --cpu-offload-gb keeps weights in RAM"),
    "--gpu-layers": ("llama.cpp", "vLLM puts every layer on the GPUs; --cpu-offload-gb keeps weights in RAM"),
    "--sharded": ("text-generation-inference", "--tensor-parallel-size N spreads the model over N GPUs"),
}
