"""Attributes of a config.json that transformers knows; scripts/config_names.py writes this file."""

VERSION = "5.24.0"  # of transformers

_SHARED = """
    GenerativePreTrainedModel PreTrainedConfig ROPE_INIT_FUNCTIONS _ _attention_heads _attn_implementation
    _attn_implementation_internal _auto_class _check_received_keys _commit_hash _config _configuration_file
    _data _encode_special_floats _experts_implementation _experts_implementation_internal _extra_content
    _from_auto _from_pipeline _get_default_generation_params _get_files_timestamps _get_generation_parameters
    _getattr_without_heterogeneous_validation _hasattr_without_heterogeneous_validation _heterogeneity_spec
    _hidden_states_layers _initialize _initialized _is_quantized
    _iter_config_keys_with_heterogeneous_adjustment _layers _mapping _mask_length _max_seq_len_cached _modules
    _name_or_path _original_inv_freq _output_attentions _post_init_done _remove_keys_not_serialized
    _rope_parameters _rope_type_labels _supported_generation_modes _token_id
    _update_heterogeneous_to_dict_output _upload_modified_files _validate_ _validate_default_rope_parameters
    allow_all_kernels allow_global_per_layer_attribute_access architectures assistant_model
    assistant_tokenizer attention_chunk_size attention_dropout attention_factor attention_mask
    attention_scaling attn_implementation attribute_map auto auto_map backend base_config_key
    base_model_ep_plan base_model_fsdp_plan base_model_name_or_path base_model_pp_plan base_model_tp_plan
    beta_fast beta_slow bos_token_id cache cache_dir capture_initial_hidden_state chain_hidden_post_norm
    chunk_size_feed_forward classifier_dropout code_revision commit_message config config_class
    configuration_files construct_processor convert_rope_params_to_dict create_compatible_mapping
    cross_attentions debug_io debug_io_dir decoder decoder_attention_mask deepgemm_megamoe deepstack_features
    default default_config_fields default_rope_type default_theta device_map device_mesh dflash
    dict_dtype_to_str disable_mmap disk_offload_folder distributed_config dtype dtype_plan dynamic eager
    embed_dim encoder encoder_attention_heads encoder_ffn_dim encoder_layers eos_token_id
    experts_implementation explicit_per_layer_attributes extra_config_files extra_files factor false
    features_only fget first_k_dense_replace force_download from_pretrained full full_attention fusion_config
    generator get get_config_class get_config_dict get_mtp_config get_text_config gguf_file
    gradient_checkpointing head_dim hf_quantizer hidden_dropout hidden_size hidden_states high_freq_factor
    id2label ignore_keys_at_rope_validation ignore_mismatched_sizes image init_kwargs init_std
    initializer_factor initializer_range inputs_embeds inv_freq is_causal is_encoder_decoder is_heterogeneous
    is_quantized items kv_sharing_modes label2id last_hidden_state layer_type layer_types local_files_only
    logits_mup_width_multiplier long_factor long_inv_freq longrope low_freq_factor mask_decoder_attentions
    max_position_embeddings max_seq_len_cached meta mlp_layer_types mm_encoder_outputs mm_token_type_ids
    model_debug model_type moe_mm_token_type_ids mrope_section mscale mscale_all_dim mtp_hidden_states_first
    mtp_layer_types mtp_mlp_layer_types mtp_per_layer_config n name_or_path nested_rope_parameter_keys no
    num_attention_heads num_channels num_heads num_hidden_layers num_hidden_layers_key num_key_value_heads
    num_labels num_mtp_layers number_of_conv_states offload_buffers optional original_inv_freq
    original_max_position_embeddings original_max_seq_len out_indices output_ output_attentions
    output_cross_attentions output_hidden_states output_mask_decoder_attentions pad_token_id
    partial_rotary_factor per_layer_attributes per_layer_config per_layer_overrides pooler_output pop
    position_ids pretrained_cfg pretrained_model_name_or_path problem_type proxies prune_layers push_to_hub
    qk_head_dim quant_method quantization_config register_buffer repo_id return_dict return_unused_kwargs
    revision rms_norm_eps rope_parameters rope_scaling rope_theta rope_type sanitize_kernel_mapping
    save_pretrained sep_token_id serialize_explicit_per_layer_config setdefault setter sharded_metadata
    short_factor single_label_classification skip sliding_window standardize_rope_params streamer sub_configs
    sub_configs_defaults subfolder text_config text_encoder tie_last_hidden_states tie_word_embeddings to_dict
    to_diff_dict to_json_file to_json_string token token_classification_bias token_type_ids tokenizer
    torch_dtype transformers_version transformers_weights true truncate trust_remote_code type
    unpadded_vocab_size use_cache validate validate_architecture validate_rope values video
    vision_aspect_ratio vision_feature_layer vision_feature_select_strategy vision_hidden_states vocab_size
    weight_mapping weights_only y yes
"""

_OWN = {
    "dots1": """
    attention_bias hidden_act intermediate_size max_window_layers moe_intermediate_size n_group
    n_routed_experts n_shared_experts norm_topk_prob num_experts_per_tok num_local_experts
    output_router_logits routed_scaling_factor topk_group
    """,
    "flex_olmo": """
    attention_bias hidden_act intermediate_size norm_topk_prob num_experts num_experts_per_tok
    num_local_experts output_router_logits router_aux_loss_coef
    """,
    "gemma2": """
    attention_bias attn_logit_softcapping final_logit_softcapping hidden_activation intermediate_size
    query_pre_attn_scalar use_bidirectional_attention
    """,
    "gemma3": """
    _sliding_window_pattern attention_bias attn_logit_softcapping boi_token_id boi_token_index eoi_token_id
    eoi_token_index final_logit_softcapping hidden_activation image_size image_token_id image_token_index
    intermediate_size layer_norm_eps mm_tokens_per_image patch_size query_pre_attn_scalar rope_local_base_freq
    sliding_window_pattern use_bidirectional_attention vision_config
    """,
    "gemma4": """
    attention_bias attention_context_left attention_context_right attention_invalid_logits_value
    attention_k_eq_v attention_logit_cap audio_config audio_token_id boa_token_id boi_token_id
    conv_kernel_size default_rope_params enable_moe_block eoa_token_index eoi_token_id final_logit_softcapping
    flex_attention global_head_dim gradient_clipping hidden_act hidden_activation hidden_size_per_layer_input
    image_token_id intermediate_size is_compileable layer_overrides moe_intermediate_size num_experts
    num_global_key_value_heads num_kv_shared_layers output_proj_dims output_router_logits patch_size
    pooling_kernel_size position_embedding_size residual_weight sdpa standardize subsampling_conv_channels
    top_k_experts use_bidirectional_attention use_clipped_linears use_double_wide_mlp video_token_id
    vision_config vocab_size_per_layer_input
    """,
    "gemma4_unified": """
    attention_bias attention_k_eq_v audio_config audio_embed_dim audio_token_id boa_token_id boi_token_id
    default_rope_params eoa_token_index eoi_token_id final_logit_softcapping flex_attention global_head_dim
    hidden_activation image_token_id intermediate_size is_compileable layer_overrides mm_embed_dim
    mm_posemb_size model_patch_size num_global_key_value_heads num_kv_shared_layers output_proj_dims
    output_router_logits patch_size pooling_kernel_size sdpa use_bidirectional_attention use_double_wide_mlp
    video_token_id vision_config
    """,
    "glm4_moe": """
    attention_bias hidden_act intermediate_size moe_intermediate_size n_group n_routed_experts
    n_shared_experts norm_topk_prob num_experts_per_tok num_local_experts output_router_logits
    routed_scaling_factor topk_group use_qk_norm
    """,
    "gpt2": """
    activation_function add_cross_attention attn_pdrop embd_pdrop layer_norm_epsilon n_embd n_head n_inner
    n_layer n_positions reorder_and_upcast_attn resid_pdrop scale_attn_by_inverse_layer_idx scale_attn_weights
    summary_activation summary_first_dropout summary_last_dropout summary_proj_to_labels summary_type
    summary_use_proj
    """,
    "gpt_neox": """
    attention_bias hidden_act intermediate_size is_decoder layer_norm_eps rotary_emb_base rotary_pct
    use_parallel_residual
    """,
    "gpt_oss": """
    attention_bias hidden_act intermediate_size num_experts num_experts_per_tok num_local_experts
    output_router_logits router_aux_loss_coef swiglu_alpha swiglu_limit
    """,
    "llama": """
    attention_bias hidden_act intermediate_size mlp_bias pretraining_tp
    """,
    "llama4": """
    attention_bias attn_scale attn_temperature_tuning boi_token_id boi_token_index eoi_token_id
    eoi_token_index floor_scale hidden_act image_size image_token_id image_token_index
    interleave_moe_layer_step intermediate_size intermediate_size_mlp moe_layers multi_modal_projector_bias
    no_rope_layer_interval no_rope_layers norm_eps num_experts_per_tok num_local_experts output_router_logits
    patch_size pixel_shuffle_ratio projector_dropout projector_input_dim projector_output_dim
    router_aux_loss_coef router_jitter_noise use_qk_norm vision_config vision_output_dim
    """,
    "minimax_m2": """
    hidden_act intermediate_size num_experts num_experts_per_tok num_local_experts output_router_logits
    rotary_dim router_aux_loss_coef router_jitter_noise
    """,
    "ministral": """
    hidden_act intermediate_size
    """,
    "ministral3": """
    hidden_act intermediate_size
    """,
    "mistral": """
    hidden_act intermediate_size
    """,
    "mistral3": """
    image_token_id image_token_index multimodal_projector_bias patch_size projector_hidden_act
    spatial_merge_size vision_config
    """,
    "mixtral": """
    hidden_act intermediate_size num_experts num_experts_per_tok num_local_experts output_router_logits
    router_aux_loss_coef router_jitter_noise
    """,
    "mllama": """
    attention_heads cross_attention_layers dropout hidden_act image_size image_token_id image_token_index
    intermediate_layers_indices intermediate_size max_aspect_ratio_id max_num_tiles norm_eps num_global_layers
    patch_size supported_aspect_ratios vision_config vision_output_dim
    """,
    "olmo2": """
    attention_bias hidden_act intermediate_size
    """,
    "olmo3": """
    attention_bias hidden_act intermediate_size
    """,
    "olmoe": """
    attention_bias clip_qkv hidden_act intermediate_size norm_topk_prob num_experts num_experts_per_tok
    num_local_experts output_router_logits router_aux_loss_coef
    """,
    "phi3": """
    embd_pdrop hidden_act intermediate_size resid_pdrop
    """,
    "qwen2": """
    hidden_act intermediate_size max_window_layers use_sliding_window
    """,
    "qwen2_moe": """
    decoder_sparse_step hidden_act intermediate_size max_window_layers mlp_only_layers moe_intermediate_size
    norm_topk_prob num_experts num_experts_per_tok output_router_logits qkv_bias router_aux_loss_coef
    shared_expert_intermediate_size use_sliding_window
    """,
    "qwen3": """
    attention_bias hidden_act intermediate_size max_window_layers use_sliding_window
    """,
    "qwen3_5": """
    attention_bias depth full_attention_interval hidden_act image_token_id in_channels intermediate_size
    linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads linear_num_value_heads
    linear_value_head_dim num_position_embeddings out_hidden_size patch_size spatial_merge_size
    temporal_patch_size video_token_id vision_config vision_end_token_id vision_start_token_id
    """,
    "qwen3_5_moe": """
    attention_bias depth full_attention_interval hidden_act image_token_id in_channels intermediate_size
    linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads linear_num_value_heads
    linear_value_head_dim moe_intermediate_size num_experts num_experts_per_tok num_position_embeddings
    out_hidden_size output_router_logits patch_size router_aux_loss_coef shared_expert_intermediate_size
    spatial_merge_size temporal_patch_size video_token_id vision_config vision_end_token_id
    vision_start_token_id
    """,
    "qwen3_moe": """
    attention_bias decoder_sparse_step hidden_act intermediate_size mlp_only_layers moe_intermediate_size
    norm_topk_prob num_experts num_experts_per_tok output_router_logits router_aux_loss_coef
    use_sliding_window
    """,
    "qwen3_next": """
    attention_bias decoder_sparse_step full_attention_interval hidden_act intermediate_size
    linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads linear_num_value_heads
    linear_value_head_dim mlp_only_layers moe_intermediate_size norm_topk_prob num_experts num_experts_per_tok
    output_router_logits router_aux_loss_coef shared_expert_intermediate_size
    """,
    "smollm3": """
    attention_bias hidden_act intermediate_size mlp_bias no_rope_layer_interval no_rope_layers
    use_sliding_window
    """,
}

# Names that a family's config class declares, or that code which builds or runs its models reads.
KNOWN = {family: frozenset((_SHARED + names).split()) for family, names in _OWN.items()}
