"""The values that the keys of the JSON configurations of `vllm serve` take: any other ends the start (pydantic).

SOURCE: the dataclasses of `vllm/config/` of vLLM 0.32.0 (`Literal`, `Field(ge=, gt=, le=)`), read by its interpreter,
and the validators of `mode` and `cudagraph_mode` (`vllm/config/compilation.py`); other releases differ.
"""

from collections.abc import Mapping

# Those that fold the case of their words.
FOLDED = frozenset({"--compilation-config.mode", "--compilation-config.cudagraph_mode"})

CHOICES: Mapping[str, frozenset[str]] = {
    key: frozenset(words.split())
    for key, words in {
        "--compilation-config.mode": """
            NONE STOCK_TORCH_COMPILE DYNAMO_TRACE_ONCE VLLM_COMPILE 0 1 2 3
        """,
        "--compilation-config.cudagraph_mode": """
            NONE PIECEWISE FULL FULL_DECODE_ONLY FULL_AND_PIECEWISE
        """,
        "--attention-config.minimax_m3_msa_decode_backend": """
            triton cutlass
        """,
        "--attention-config.indexer_kv_dtype": """
            auto bf16 fp8 mxfp4 nvfp4
        """,
        "--compilation-config.compile_cache_save_format": """
            binary unpacked
        """,
        "--kv-transfer-config.kv_role": """
            kv_producer kv_both kv_consumer
        """,
        "--kv-transfer-config.kv_load_failure_policy": """
            recompute fail
        """,
        "--kv-events-config.publisher": """
            null zmq
        """,
        "--pooler-config.task": """
            embed classify token_embed token_classify plugin embed&token_classify
        """,
        "--pooler-config.pooling_type": """
            CLS LAST MEAN ALL STEP
        """,
        "--pooler-config.seq_pooling_type": """
            CLS LAST MEAN
        """,
        "--pooler-config.tok_pooling_type": """
            ALL STEP
        """,
        "--profiler-config.profiler": """
            torch cuda proton
        """,
        "--profiler-config.proton_context": """
            shadow python
        """,
        "--profiler-config.proton_data": """
            tree trace
        """,
        "--profiler-config.proton_backend": """
            cupti
        """,
        "--profiler-config.proton_hook": """
            triton
        """,
        "--profiler-config.proton_output_format": """
            hatchet hatchet_msgpack chrome_trace
        """,
        "--speculative-config.method": """
            ngram medusa mlp_speculator draft_model suffix custom_class eagle eagle3 extract_hidden_states
            deepseek_mtp dots3_note_mtp mimo_mtp mimo_v2_mtp glm4_moe_mtp glm4_moe_lite_mtp glm_ocr_mtp
            ernie_mtp nemotron_h_mtp exaone_moe_mtp exaone4_5_mtp qwen3_next_mtp qwen4_exp_mtp qwen3_5_mtp
            longcat_flash_mtp bailing_hybrid_v3_mtp minimax_m3_mtp bailing_hybrid_mtp mtp kimi_k3_mtp
            pangu_ultra_moe_mtp step3p5_mtp hy_v3_mtp hy_v4_mtp gemma4_mtp inkling_mtp glm5_next_mtp dflash
            ngram_gpu dspark
        """,
        "--speculative-config.moe_backend": """
            auto triton batched_triton deep_gemm deep_gemm_mega_moe cutlass flashinfer_trtllm
            flashinfer_cutlass flashinfer_cutedsl flashinfer_moe_ep_cutedsl flashinfer_b12x b12x
            flashinfer_moe_ep_mega_deep_gemm marlin humming triton_unfused aiter aiter_mega_moe
            aiter_triton_mxfp4_bf16 flydsl hpc emulation rdna3
        """,
        "--speculative-config.kv_cache_dtype": """
            auto float16 bfloat16 fp8 fp8_e4m3 fp8_e5m2 fp8_inc fp8_ds_mla nvfp4_ds_mla turboquant_k8v4
            turboquant_4bit_nc turboquant_k3v4_nc turboquant_3bit_nc ultraquant_4bit int4_per_token_head
            int8_per_token_head fp8_per_token_head nvfp4 nvfp4_4over6
        """,
        "--speculative-config.rejection_sample_method": """
            standard synthetic block
        """,
        "--speculative-config.draft_sample_method": """
            greedy probabilistic
        """,
        "--structured-outputs-config.backend": """
            auto xgrammar guidance outlines lm-format-enforcer
        """,
        "--eplb-config.policy": """
            default
        """,
        "--eplb-config.communicator": """
            torch_nccl torch_gloo torch_xccl nixl pynccl
        """,
        "--kernel-config.moe_backend": """
            auto triton batched_triton deep_gemm deep_gemm_mega_moe cutlass flashinfer_trtllm
            flashinfer_cutlass flashinfer_cutedsl flashinfer_moe_ep_cutedsl flashinfer_b12x b12x
            flashinfer_moe_ep_mega_deep_gemm marlin humming triton_unfused aiter aiter_mega_moe
            aiter_triton_mxfp4_bf16 flydsl hpc emulation rdna3
        """,
        "--kernel-config.sparse_indexer_topk_backend": """
            auto deep_select cooperative persistent per_row flashinfer torch aiter
        """,
        "--kernel-config.linear_backend": """
            auto cutlass flashinfer_cutlass flashinfer_cutedsl flashinfer_trtllm flashinfer_cudnn
            flashinfer_b12x b12x marlin humming triton deep_gemm torch aiter machete fbgemm conch exllama
            emulation xpu xpu_woq
        """,
        "--ec-transfer-config.ec_role": """
            ec_producer ec_both ec_consumer
        """,
    }.items()
}

# Whole numbers, with the least that is taken; 0 and negative ones where nothing is said.
NUMBERS: Mapping[str, int | None] = {
    "--attention-config.flash_attn_max_num_splits_for_cuda_graph": None,
    "--attention-config.tokenspeed_mla_min_split_kv": 1,
    "--attention-config.tq_max_kv_splits_for_cuda_graph": None,
    "--attention-config.sparse_mla_prefill_workspace_factor": 2,
    "--attention-config.flex_attn_block_m": None,
    "--attention-config.flex_attn_block_n": None,
    "--attention-config.flex_attn_q_block_size": None,
    "--attention-config.flex_attn_kv_block_size": None,
    "--compilation-config.encoder_cudagraph_max_vision_items_per_batch": None,
    "--compilation-config.encoder_cudagraph_max_frames_per_batch": None,
    "--compilation-config.decoder_replay_trim_threshold": 0,
    "--compilation-config.cudagraph_num_of_warmups": None,
    "--compilation-config.max_cudagraph_capture_size": None,
    "--kv-transfer-config.kv_port": None,
    "--kv-events-config.buffer_steps": None,
    "--kv-events-config.hwm": None,
    "--kv-events-config.max_queue_size": None,
    "--pooler-config.dimensions": None,
    "--pooler-config.max_embed_len": None,
    "--pooler-config.step_tag_id": None,
    "--profiler-config.delay_iterations": 0,
    "--profiler-config.max_iterations": 0,
    "--profiler-config.warmup_iterations": 0,
    "--profiler-config.active_iterations": 1,
    "--profiler-config.wait_iterations": 0,
    "--speculative-config.num_speculative_tokens": 1,
    "--speculative-config.draft_tensor_parallel_size": 1,
    "--speculative-config.tensor_parallel_size": None,
    "--speculative-config.max_model_len": 1,
    "--speculative-config.prompt_lookup_max": 1,
    "--speculative-config.prompt_lookup_min": 1,
    "--speculative-config.suffix_decoding_max_tree_depth": None,
    "--speculative-config.suffix_decoding_max_cached_requests": None,
    "--speculative-config.dspark_draft_topk": 1,
    "--eplb-config.window_size": 1,
    "--eplb-config.step_interval": 1,
    "--eplb-config.num_redundant_experts": 0,
    "--eplb-config.log_balancedness_interval": 1,
    "--ec-transfer-config.ec_port": None,
}
