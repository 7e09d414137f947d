"""Keys of LLaMA-Factory (llamafactory 0.9.5: hparams/)."""

from vramplan.importers.keys import Format
from vramplan.importers.vocabulary.base import vocabulary, words
from vramplan.importers.vocabulary.trainer import TRAINER_GPUS, TRAINER_HARMLESS, TRAINER_READ, TRAINER_UNMODELLED

#: Keys that files of `llamafactory-cli chat`, `webchat` and `api` have (hparams/parser.py _INFER_ARGS), and that say
#: nothing of a training.
CHAT = words(
    """
    model_name_or_path adapter_name_or_path template finetuning_type infer_backend infer_dtype trust_remote_code
    cache_dir offload_folder use_kv_cache rope_scaling flash_attn quantization_bit quantization_method
    quantization_type double_quantization default_system enable_thinking do_sample temperature top_p top_k num_beams
    max_length max_new_tokens repetition_penalty length_penalty skip_special_tokens image_max_pixels image_min_pixels
    video_max_pixels video_min_pixels video_fps video_maxlen
    """
)
CHAT_PREFIXES = ("vllm_", "sglang_")
#: Types of models that enable_liger_kernel patches (model/model_utils/liger_kernel.py apply_liger_kernel); others it
#: leaves as they are, also where Liger has something for them.
LIGER_FAMILIES = words(
    """
    gemma gemma2 gemma3 gemma3_text glm glm4 glm4v granite llama llava mistral mixtral mllama olmo2 paligemma phi3
    qwen2 qwen2_vl qwen2_5_vl qwen3 qwen3_moe qwen3_next qwen3_5 gpt_oss
    """
)

LLAMAFACTORY = vocabulary(
    Format.LLAMAFACTORY,
    "LLaMA-Factory",
    "llamafactory 0.9.5",
    decisive="""
    stage finetuning_type cutoff_len template dataset_dir quantization_bit quantization_method double_quantization
    quantization_type lora_rank lora_target additional_target flash_attn enable_liger_kernel neat_packing pure_bf16
    upcast_layernorm disable_gradient_checkpointing use_reentrant_gc use_unsloth plot_loss adapter_name_or_path
    """,
    read=TRAINER_READ + "model_name_or_path lora_dropout use_dora packing use_unsloth_gc",
    harmless=TRAINER_HARMLESS
    | words(
        """
    adapter_folder cache_dir use_fast_tokenizer split_special_tokens new_special_tokens_config init_special_tokens
    model_revision low_cpu_mem_usage rope_scaling infer_backend offload_folder use_kv_cache use_v1_kernels infer_dtype
    hf_hub_token ms_hub_token om_hub_token print_param_status moe_aux_loss_coef quantization_device_map template
    dataset eval_dataset dataset_dir media_dir train_on_prompt mask_history streaming buffer_size mix_strategy
    interleave_probs overwrite_cache preprocessing_batch_size preprocessing_num_workers max_samples eval_num_beams
    ignore_pad_token_for_loss val_size eval_on_each_dataset tool_format default_system enable_thinking
    preserve_thinking tokenized_path data_shared_file_system lora_alpha loraplus_lr_ratio loraplus_lr_embedding
    use_rslora pissa_init pissa_iter pissa_convert create_new_adapter plot_loss disable_shuffling early_stopping_steps
    include_effective_tokens_per_second ray_init_kwargs master_addr master_port predict_with_generate
    generation_max_length generation_num_beams do_sample temperature top_p top_k num_beams max_length max_new_tokens
    repetition_penalty length_penalty skip_special_tokens freeze_vision_tower freeze_multi_modal_projector
    freeze_language_model image_max_pixels image_min_pixels video_max_pixels video_min_pixels video_fps video_maxlen
    gradient_checkpointing gradient_checkpointing_kwargs
    """
    ),
    prefixes="""
    freeze_trainable freeze_extra swanlab_ use_swanlab profiler_ enable_torch_profiler export_ pref_ dpo_ kto_ ppo_
    simpo_ galore_ apollo_ badam_ oft_ vllm_ sglang_ kt_
    """,
    unmodelled={
        **TRAINER_UNMODELLED,
        "use_unsloth": "replaces the model by Unsloth's, which keeps fewer activations",
        "use_unsloth_gc": "moves the checkpoints of layers to the host's memory",
        "shift_attn": "replaces attention by a shifted one",
        "mixture_of_depths": "changes the model",
        "resize_vocab": "makes the embedding and the head larger, and trains them",
        "add_tokens": "makes the embedding and the head larger",
        "add_special_tokens": "makes the embedding and the head larger",
        "upcast_lmhead_output": "makes another fp32 copy of the logits",
        "train_from_scratch": "begins with random weights",
        "use_llama_pro": "trains added layers only",
        "use_dft_loss": "replaces the loss",
        "use_asft_loss": "replaces the loss, with a second model beside the first",
        "use_eaft_loss": "replaces the loss",
        "use_muon": "replaces the optimizer by Muon",
        "use_adam_mini": "replaces the optimizer by Adam-mini",
        "compute_accuracy": "looks at the logits while it evaluates",
        "fp8": "computes in eight bits",
        "ref_model": "holds a second model",
        "ref_model_quantization_bit": "quantises a second model",
    },
    refused={
        "use_galore": "full-parameter training with GaLore, whose states no scenario describes",
        "use_apollo": "full-parameter training with APOLLO, whose states no scenario describes",
        "use_badam": "full-parameter training with BAdam, whose states no scenario describes",
        "reward_model": "reinforcement learning (PPO), not SFT",
        "use_mca": "training with Megatron, whose memory no scenario describes",
        "use_kt": "training with KTransformers, which keeps experts in the host's memory",
        "use_hyper_parallel": "training with another parallel backend",
        "export_dir": "merging or exporting, not training",
        "task": "an evaluation, not a training",
    },
    features="use_galore use_apollo use_badam use_mca use_kt use_hyper_parallel",
    several_gpus=TRAINER_GPUS + " ray_num_workers",
)
