"""Keys of axolotl (axolotl 0.19.0: utils/schemas/, integrations/)."""

from vramplan.importers.keys import Format
from vramplan.importers.vocabulary.base import vocabulary, words
from vramplan.importers.vocabulary.peft import PEFT
from vramplan.importers.vocabulary.trainer import NOISE
from vramplan.importers.vocabulary.trl import TRL_UNMODELLED

#: Keys of the Trainer and of TRL that axolotl hands on under their names.
_OF_TRL = words(
    """
    torch_compile torch_compile_backend torch_compile_mode auto_find_batch_size activation_offloading
    optim_target_modules neftune_noise_alpha
    """
)
_OF_PEFT = {
    "lora_target_parameters": "target_parameters",
    "lora_rank_pattern": "rank_pattern",
    "peft_layers_to_transform": "layers_to_transform",
    "peft_layer_replication": "layer_replication",
    "peft_trainable_token_indices": "trainable_token_indices",
}

AXOLOTL = vocabulary(
    Format.AXOLOTL,
    "axolotl",
    "axolotl 0.19.0",
    decisive="""
    base_model base_model_config micro_batch_size sequence_len sample_packing eval_sample_packing pad_to_sequence_len
    adapter lora_target_linear flash_attention sdp_attention dataset_prepared_path val_set_size num_epochs
    saves_per_epoch evals_per_epoch type_of_model wandb_project
    """,
    read="""
    load_in_4bit load_in_8bit lora_r lora_dropout lora_target_modules lora_modules_to_save peft_use_dora
    gradient_accumulation_steps optimizer bf16 fp16 bfloat16 float16
    gradient_checkpointing gradient_checkpointing_kwargs attn_implementation
    xformers_attention sage_attention flex_attention eager_attention plugins liger_fused_linear_cross_entropy
    liger_rope liger_rms_norm liger_layer_norm liger_swiglu liger_glu_activation
    cut_cross_entropy max_grad_norm embeddings_skip_upcast model_quantization_config
    model_quantization_config_kwargs quantize_moe_experts eval_steps eval_strategy
    evaluation_strategy eval_batch_size test_datasets peft_autocast_adapter_dtype bnb_config_kwargs rl
    """,
    harmless=words(
        """
    peft_ensure_weight_tying peft_layers_pattern fix_untrained_tokens device hf_mlflow_log_artifacts lisa_step_interval
    lisa_layers_attribute relora_prune_ratio relora_prune_method rl_beta orpo_alpha simpo_gamma cpo_alpha dpo_beta
    rpo_alpha kto_desirable_weight kto_undesirable_weight eaft_alpha eaft_k eval_causal_lm_metrics dynamic_checkpoint
    role_boundaries image_size image_resize_algorithm freeze_mm_modules rope_scaling torchdistx_path float32
    chunked_cross_entropy_num_chunks tiled_mlp_num_shards tiled_mlp_use_original_mlp
    base_model_config cls_model_config tokenizer_config tokenizer_use_fast tokenizer_legacy tokenizer_type
    tokenizer_use_mistral_common tokenizer_save_jinja_files processor_type processor_kwargs trust_remote_code
    type_of_model model_type revision_of_model model_revision
    is_falcon_derived_model is_llama_derived_model is_mistral_derived_model
    is_qwen_derived_model output_dir hub_model_id hub_strategy hub_revision save_safetensors strict
    resume_from_checkpoint auto_resume_from_checkpoints mean_resizing_embeddings reinit_weights
    datasets shuffle_merged_datasets shuffle_before_merging_datasets dataset_prepared_path
    dataset_shard_num dataset_shard_idx skip_prepare_dataset num_dataset_shards_to_save pretraining_dataset
    dataset_processes dataset_num_proc dataset_exact_deduplication dataset_keep_in_memory dataloader_pin_memory
    dataloader_num_workers dataloader_prefetch_factor dataloader_drop_last accelerator_config remove_unused_columns
    push_dataset_to_hub hf_use_auth_token device_map local_rank seed ddp ddp_timeout ddp_bucket_cap_mb
    ddp_broadcast_buffers ddp_find_unused_parameters do_bench_eval bench_dataset bench_split metric_for_best_model
    greater_is_better loss_watchdog_threshold loss_watchdog_patience gc_steps gc_collect_steps torch_empty_cache_steps
    tf32 excess_length_strategy eval_sequence_len min_sample_len max_prompt_len sample_packing_group_size
    sample_packing_bin_size sample_packing_sequentially sample_packing_mp_start_method eval_sample_packing
    pad_to_sequence_len pad_to_multiple_of curriculum_sampling multipack_real_batches pretrain_multipack_buffer_size
    pretrain_multipack_attn pretraining_sample_concatenation streaming streaming_multipack_buffer_size
    special_tokens added_tokens_overrides max_steps warmup_steps warmup_ratio
    save_steps saves_per_epoch save_strategy save_total_limit save_first_step logging_steps
    early_stopping_patience load_best_model_at_end save_only_model profiler_steps profiler_steps_start
    include_tokens_per_second include_tkps low_cpu_mem_usage chat_template
    chat_template_jinja chat_template_kwargs eot_tokens default_system_message is_preprocess preprocess_iterable
    total_num_tokens total_supervised_tokens sample_packing_eff_est axolotl_config_path batch_size
    train_on_inputs group_by_length learning_rate embedding_lr embedding_lr_scale weight_decay optim_args lr_scheduler
    lr_scheduler_kwargs lr_quadratic_warmup cosine_min_lr_ratio cosine_constant_lr_ratio lr_div_factor lr_groups
    adam_epsilon adam_epsilon2 adam_beta1 adam_beta2 adam_beta3 num_epochs lora_alpha lora_fan_in_fan_out
    lora_alpha_pattern peft_use_rslora peft_init_lora_weights loraplus_lr_ratio loraplus_lr_embedding merge_lora
    merge_method lora_model_dir qlora_sharded_model_loading gpu_memory_limit max_memory
    experimental_skip_move_to_device eval_table_size eval_max_new_tokens debug logging_dir xformers_attention
    gradient_checkpointing_kwargs use_tensorboard liger_use_token_scaling trl vllm jagged_restart_steps
    jagged_restart_warmup_steps jagged_restart_anneal_steps capabilities env_capabilities fsdp_final_state_dict_type
    use_ray ray_run_name resources_per_worker
    """
    ),
    prefixes="""
    wandb_ use_wandb mlflow_ use_mlflow comet_ use_comet trackio_ use_trackio gradio_ otel_ use_otel swanlab_
    use_swanlab generation_ generate_samples num_generation_samples
    """,
    unmodelled={
        **{key: TRL_UNMODELLED[key] for key in _OF_TRL},
        **{key: PEFT.unmodelled[theirs] for key, theirs in _OF_PEFT.items()},
        "noisy_embedding_alpha": NOISE,
        "flash_attn_rms_norm": "replaces the norms by flash-attention's",
        "flash_optimum": "replaces attention by BetterTransformer's",
        "sdpa_varlen": "runs packed rows through another kernel",
        "fused_attn_kernel": "fuses the operations around attention",
        "experts_implementation": "chooses how experts are computed",
        "gemma4_hybrid_attn_impl": "uses two kinds of attention",
        "scaling_softmax": "replaces attention's softmax",
        "use_onebitllms": "replaces linear layers by one-bit ones",
        "trainer_cls": "replaces the Trainer",
        "max_packed_sequence_len": "is the older way of packing",
        "layer_offloading": "moves layers to the host's memory",
        "selective_checkpointing": "keeps some activations of a checkpointed layer",
        "lora_on_cpu": "keeps adapters in the host's memory",
        "loftq": "changes how the base model is loaded",
        "peft": "changes how the base model is loaded",
        "unfrozen_parameters": "trains parameters of the base model beside the adapters",
        "relora": "merges the adapters and begins again while it trains",
        "lisa_n_layers": "trains a few layers at a time",
        "resize_token_embeddings_to_32x": "makes the embedding and the head larger",
        "shrink_embeddings": "makes the embedding and the head smaller",
        "tokens": "makes the embedding and the head larger",
        "fp8": "computes in eight bits",
        "fp32_norms": "keeps the norms in fp32",
        "chunked_cross_entropy": "casts the logits to fp32 a chunk at a time",
        "flash_attn_cross_entropy": "replaces the loss by flash-attention's",
        "flash_attn_fuse_mlp": "fuses the MLP's operations",
        "liger_rms_norm_gated": "replaces operations by Liger's, which keep fewer activations",
        "liger_cross_entropy": "replaces the loss by Liger's, which writes its gradient into the logits",
        "lora_mlp_kernel": "replaces adapters by fused kernels, which keep fewer activations",
        "lora_qkv_kernel": "replaces adapters by fused kernels, which keep fewer activations",
        "lora_o_kernel": "replaces adapters by fused kernels, which keep fewer activations",
        "lora_embedding_kernel": "replaces adapters by fused kernels, which keep fewer activations",
        "tiled_mlp": "computes the MLP in pieces of the sequence",
        "batch_flattening": TRL_UNMODELLED["padding_free"],
        "use_kernels": "replaces layers by kernels of the hub",
        "ple_cpu_offload": "keeps a part of the model in the host's memory",
        "spectrum_top_fraction": "trains some layers only",
        **dict.fromkeys(("overrides_of_model_config", "model_config"), "changes the model"),
        **dict.fromkeys(("overrides_of_model_kwargs", "model_kwargs"), "changes how the model is loaded"),
        "s2_attention": "replaces attention by a shifted one",
        "use_pose": "skips positions of the sequence",
        "use_eaft": "replaces the loss",
        "do_causal_lm_eval": "generates text while it evaluates",
    },
    refused={
        "rl": "preference training or reinforcement learning, not SFT",
        "center_rewards_coefficient": "reward modelling, not SFT",
        "num_labels": "classification, not SFT",
        "reward_model": "reward modelling, not SFT",
        "process_reward_model": "reward modelling, not SFT",
        "ebft": "another kind of training, not SFT",
        "qat": "quantisation-aware training, not SFT",
        "kd_trainer": "distillation, not SFT",
        "gptq": "training on a GPTQ model, whose weights no scenario describes",
    },
    features="qat gptq",
    several_gpus="""
    deepspeed deepcompile fsdp fsdp_config fsdp_version world_size dp_shard_size dp_replicate_size
    sequence_parallel_degree context_parallel_size expert_parallel_size
    tensor_parallel_size heads_k_stride ring_attn_func ray_num_workers
    """,
)
