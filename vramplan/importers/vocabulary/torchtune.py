"""Keys of torchtune (torchtune 0.6.1: recipes/configs/), sections as dotted keys."""

from vramplan.importers.keys import Format
from vramplan.importers.vocabulary.base import vocabulary, words

TORCHTUNE = vocabulary(
    Format.TORCHTUNE,
    "torchtune",
    "torchtune 0.6.1",
    decisive="",
    read="""
    model._component_ model.lora_rank model.lora_dropout model.lora_attn_modules model.apply_lora_to_mlp
    model.apply_lora_to_output model.quantize_base optimizer._component_ optimizer.fused loss._component_ batch_size
    gradient_accumulation_steps clip_grad_norm dtype enable_activation_checkpointing tokenizer.max_seq_len
    dataset.packed checkpointer.checkpoint_dir
    """,
    harmless=words(
        """
    output_dir seed shuffle epochs max_steps_per_epoch resume_from_checkpoint save_adapter_weights_only
    log_every_n_steps log_peak_memory_stats log_level device low_cpu_ram model.lora_alpha dataset datasets collate_fn
    name optimizer.lr optimizer.weight_decay optimizer.betas optimizer.eps optimizer.foreach cudnn_deterministic_mode
    run_val_every_n_steps dataset_val resume base_dir cache_dir save_every_n_steps keep_last_n_checkpoints model_dir
    """
    ),
    prefixes="""
    lr_scheduler. profiler. metric_logger. tokenizer. checkpointer. dataset. loss. dataset_val. datasets. dataloader.
    """,
    unmodelled={
        "compile": "compiles the model and the loss, which fuses operations and keeps other activations",
        "enable_activation_offloading": "moves activations to the host's memory",
        "optimizer_in_bwd": "steps the optimizer inside backward, so that gradients do not pile up",
        "model.use_dora": "trains a magnitude per output too, and makes the whole adapted weight in every forward",
        "optimizer.momentum": "gives SGD a state of the parameters' size",
        "ac_mode": "checkpoints some layers only",
        "ac_option": "checkpoints some layers only",
        "fsdp_cpu_offload": "moves parameters to the host's memory",
    },
    refused={
        "teacher_model._component_": "distillation, not SFT",
        "quantizer._component_": "quantisation-aware training or a conversion, not SFT",
        "ref_checkpointer._component_": "preference training, not SFT",
        "policy_model._component_": "reinforcement learning (PPO), not SFT",
        "reward_and_value_model._component_": "reinforcement learning (PPO), not SFT",
        "tasks": "an evaluation, not a training",
        "prompt.user": "generation, not training",
    },
    several_gpus="""
    tensor_parallel_dim data_parallel_shard_dim data_parallel_replicate_dim context_parallel_dim custom_sharded_layers
    fsdp.cpu_offload tensor_parallel_plan._component_ nproc_per_node
    """,
    # modules/loss/ has no loss that Liger makes, models/ none of its kernels and one attention each; the recipes refuse
    # float16
    lacks=("loss", "loss in chunks", "kernels", "attention", "float16"),
)
