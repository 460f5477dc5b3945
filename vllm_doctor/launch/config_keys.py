"""The keys of the JSON configurations of `vllm serve`: any other key ends the start (pydantic, extra="forbid").

SOURCE: the parser of vLLM 0.32.0 and the dataclasses of `vllm/config/` behind it, read in its own interpreter; older
and newer releases differ.
"""

from collections.abc import Mapping

# The release that the keys are of.
RELEASE = "0.32.0"

# Parsed after the arguments, in which the others are: any JSON passes the parser.
LATER = frozenset({"--speculative-config", "--diffusion-config"})

CONFIG_KEYS: Mapping[str, frozenset[str]] = {
    flag: frozenset(keys.split())
    for flag, keys in {
        "--attention-config": """
            backend backend_per_kind disable_flashinfer_q_quantization flash_attn_max_num_splits_for_cuda_graph
            flash_attn_version flex_attn_block_m flex_attn_block_n flex_attn_kv_block_size
            flex_attn_q_block_size hisparse_config indexer_kv_dtype indexer_sparse_logits
            minimax_m3_msa_decode_backend mla_prefill_backend sparse_mla_force_mqa
            sparse_mla_prefill_workspace_factor tokenspeed_mla_min_split_kv tq_max_kv_splits_for_cuda_graph
            use_non_causal use_prefill_query_quantization use_trtllm_attention
        """,
        "--aux-output-config": """
            enable_return_routed_experts max_bytes
        """,
        "--compilation-config": """
            backend cache_dir compile_cache_save_format compile_mm_encoder compile_ranges_endpoints
            compile_sizes cudagraph_capture_sizes cudagraph_copy_inputs cudagraph_decoder_replay
            cudagraph_mm_encoder cudagraph_mode cudagraph_num_of_warmups cudagraph_specialize_lora custom_ops
            debug_dump_path decoder_replay_cudagraph_capture_sizes decoder_replay_trim_threshold
            dynamic_shapes_config encoder_cudagraph_max_frames_per_batch
            encoder_cudagraph_max_vision_items_per_batch encoder_cudagraph_token_budgets fast_moe_cold_start
            inductor_compile_config inductor_passes ir_enable_torch_wrap max_cudagraph_capture_size mode
            pass_config splitting_ops use_inductor_graph_partition
        """,
        "--diffusion-config": """
            canvas_length max_denoising_steps
        """,
        "--ec-manager-config": """
            encoder_cache_manager_cls manager_config
        """,
        "--ec-transfer-config": """
            ec_buffer_device ec_buffer_size ec_connector ec_connector_extra_config ec_connector_module_path
            ec_ip ec_port ec_role engine_id
        """,
        "--engram-config": """
            cpu_offload dp_shared_memory embedding_across_dp use_thp
        """,
        "--eplb-config": """
            communicator enable_migration_batching log_balancedness log_balancedness_interval
            num_redundant_experts policy step_interval use_async window_size
        """,
        "--fault-tolerance-config": """
            engine_recovery_timeout_sec
        """,
        "--ir-op-priority": """
            fused_add_rms_norm gelu_and_mul_sparse rms_norm
        """,
        "--kernel-config": """
            enable_cutedsl_warmup enable_flashinfer_autotune enable_jit_warmup
            enable_rocm_segmented_attn_autotune ir_op_priority linear_backend linear_backend_per_quant
            moe_backend sparse_indexer_topk_backend
        """,
        "--kv-events-config": """
            buffer_steps enable_kv_cache_events endpoint hwm max_queue_size publisher replay_endpoint topic
        """,
        "--kv-transfer-config": """
            enable_permute_local_kv engine_id kv_buffer_device kv_connector kv_connector_extra_config
            kv_connector_module_path kv_load_failure_policy kv_port kv_role
        """,
        "--logging-config": """
            configure_logging formatter log_level pylogging_config_file
        """,
        "--pooler-config": """
            dimensions enable_chunked_processing enable_flash_late_interaction logit_mean logit_sigma
            max_embed_len pooling_type returned_token_ids seq_pooling_type step_tag_id task tok_pooling_type
            use_activation
        """,
        "--profiler-config": """
            active_iterations capture_torch_profiler delay_iterations detailed_trace_annotation ignore_frontend
            max_iterations profiler proton_backend proton_context proton_data proton_graph_attribution
            proton_hook proton_mode proton_output_format proton_profiler_dir torch_profiler_activities
            torch_profiler_dir torch_profiler_dump_cuda_time_total torch_profiler_record_shapes
            torch_profiler_use_gzip torch_profiler_with_flops torch_profiler_with_memory
            torch_profiler_with_stack wait_iterations warmup_iterations
        """,
        "--quantization-config": """
            ignore linear moe targets
        """,
        "--reasoning-config": """
            reasoning_end_str reasoning_parser reasoning_start_str
        """,
        "--speculative-config": """
            attention_backend code_revision disable_eagle_block_drop disable_padded_drafter_batch
            draft_load_config draft_model_config draft_parallel_config draft_sample_method
            draft_tensor_parallel_size dspark_draft_topk enable_adaptive_verification enforce_eager
            index_share_for_mtp_iteration kv_cache_dtype max_model_len method model moe_backend
            num_speculative_tokens num_speculative_tokens_per_batch_size parallel_drafting prompt_lookup_max
            prompt_lookup_min quantization rejection_sample_method revision suffix_decoding_max_cached_requests
            suffix_decoding_max_spec_factor suffix_decoding_max_tree_depth suffix_decoding_min_token_prob
            synthetic_acceptance_length synthetic_acceptance_rates target_model_config target_parallel_config
            tensor_parallel_size use_heterogeneous_vocab use_local_argmax_reduction
        """,
        "--structured-outputs-config": """
            backend disable_additional_properties disable_any_whitespace enable_in_reasoning reasoning_parser
            reasoning_parser_plugin
        """,
        "--weight-transfer-config": """
            backend
        """,
    }.items()
}
