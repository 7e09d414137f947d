"""Keys of transformers' TrainingArguments, which TRL and LLaMA-Factory extend."""

from vramplan.importers.vocabulary.base import words

#: transformers 5.17.0 training_args.py (and the names of older releases): schedules, logging, saving, data loading.
TRAINER_HARMLESS = words(
    """
    output_dir overwrite_output_dir num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs
    warmup_steps warmup_ratio weight_decay adam_beta1 adam_beta2 adam_epsilon optim_args average_tokens_across_devices
    bf16_full_eval fp16_full_eval tf32 torch_empty_cache_steps logging_dir logging_strategy
    logging_steps logging_first_step log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level
    log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id eval_steps eval_delay prediction_loss_only eval_on_start eval_do_concat_batches
    eval_use_gather_object batch_eval_metrics save_only_model save_strategy save_steps save_on_each_node
    save_total_limit save_safetensors enable_jit_checkpoint push_to_hub push_to_hub_model_id push_to_hub_token
    hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end
    metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint full_determinism
    seed data_seed jit_mode_eval use_ipex dataloader_drop_last dataloader_num_workers dataloader_pin_memory
    dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order
    remove_unused_columns label_names train_sampling_strategy group_by_length length_column_name
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout debug
    skip_memory_metrics do_train do_predict resume_from_checkpoint include_tokens_per_second include_for_metrics
    include_inputs_for_metrics past_index accelerator_config use_cache local_rank per_device_eval_batch_size
    eval_accumulation_steps do_eval bnb_4bit_compute_dtype trust_remote_code
    """
)
#: transformers 5.17.0 integrations/neftune.py `neftune_post_forward_hook` returns a new tensor; where `enable_input_-
#: require_grads` has made the embeddings' output a leaf before, as checkpointing does, autograd keeps that one as well.
NOISE = "adds noise to the embeddings' output, of which checkpointing then keeps two copies"
#: transformers 5.17.0 training_args.py: what changes memory and no scenario says.
TRAINER_UNMODELLED = {
    "torch_compile": "compiles the model, which fuses operations and keeps other activations",
    "torch_compile_backend": "compiles the model, which fuses operations and keeps other activations",
    "torch_compile_mode": "compiles the model, which fuses operations and keeps other activations",
    "neftune_noise_alpha": NOISE,
    "auto_find_batch_size": "lowers the batch after an out-of-memory error",
    "label_smoothing_factor": "replaces the loss by one that keeps the logits and their log-softmax",
    "optim_target_modules": "gives some parameters a low-rank optimizer state",
    "use_cpu": "trains on the CPU (add --device cpu)",
}
TRAINER_GPUS = "deepspeed fsdp fsdp_config parallelism_config fsdp_transformer_layer_cls_to_wrap fsdp_min_num_params"
TRAINER_READ = """
    per_device_train_batch_size gradient_accumulation_steps optim max_grad_norm bf16 fp16 gradient_checkpointing
    gradient_checkpointing_kwargs use_liger_kernel liger_kernel_config eval_strategy evaluation_strategy
    """
