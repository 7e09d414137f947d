"""Keys of TRL (trl 1.16.0: trainer/sft_config.py, dpo_config.py, model_config.py, scripts/utils.py)."""

from vramplan.importers.keys import Format
from vramplan.importers.vocabulary.base import vocabulary, words
from vramplan.importers.vocabulary.peft import PEFT
from vramplan.importers.vocabulary.trainer import TRAINER_GPUS, TRAINER_HARMLESS, TRAINER_READ, TRAINER_UNMODELLED

#: What changes memory and no scenario says, in a file and in the arguments of a run.
TRL_UNMODELLED = {
    **TRAINER_UNMODELLED,
    "activation_offloading": "moves activations to the host's memory",
    "padding_free": "puts a batch's samples into one row without padding",
}

#: The data keys of recipes/ in huggingface/alignment-handbook, whose scripts hand the rest of a file to TRL's trainers.
_HANDBOOK = """
    dataset_mixer dataset_mixture dataset_splits dataset_configs dataset_id_or_path text_column chat_template
    tokenizer_name_or_path base_model_revision model_code_revision preprocessing_num_workers overwrite_cache
    truncation_side auto_insert_empty_system_msg
    """

#: Keys that SFTConfig alone has among TRL's configurations, max_seq_length in older releases.
SFT_ONLY = words(
    """
    assistant_only_loss completion_only_loss dataset_kwargs dataset_text_field eval_packing packing packing_strategy
    max_seq_length
    """
)
#: Keys of dpo_config.py that sft_config.py has not, max_prompt_length and ref_model_init_kwargs in older releases. The
#: configurations of KTO, GRPO and RLOO have `beta` too, and others, which are refused.
DPO_ONLY = words(
    """
    beta precompute_ref_log_probs precompute_ref_batch_size max_prompt_length ref_model_init_kwargs sync_ref_model
    ref_model_mixup_alpha ref_model_sync_steps f_divergence_type f_alpha_divergence_coef discopop_tau ld_alpha
    loss_weights use_weighting
    """
)
_REINFORCEMENT = """
    num_generations max_completion_length reward_funcs reward_weights scale_rewards num_iterations steps_per_generation
    generation_batch_size epsilon epsilon_high use_vllm vllm_mode
    """

TRL = vocabulary(
    Format.TRL,
    "TRL",
    "trl 1.16.0",
    decisive="""
    use_peft dataset_name max_seq_length use_bnb_nested_quant dataset_text_field lora_task_type
    packing_strategy eval_packing padding_free completion_only_loss assistant_only_loss dataset_train_split
    dataset_test_split dataset_config dataset_kwargs chat_template_path model_init_kwargs dataset_mixer
    dataset_mixture dataset_splits dataset_id_or_path beta precompute_ref_log_probs
    """,
    read=TRAINER_READ
    + """
    model_name_or_path lora_r dtype torch_dtype attn_implementation lora_dropout use_dora lora_target_modules
    lora_modules_to_save
    load_in_4bit load_in_8bit bnb_4bit_quant_type bnb_4bit_quant_storage max_length packing
    """,
    harmless=TRAINER_HARMLESS
    | words(
        """
    dataset_name dataset_config dataset_train_split dataset_test_split dataset_streaming ignore_bias_buffers datasets
    streaming test_split_size dataset_text_field dataset_kwargs dataset_num_proc dataset_batch_size eos_token
    pad_token truncation_mode shuffle_dataset packing_strategy pad_to_multiple_of eval_packing completion_only_loss
    assistant_only_loss chat_template_path loss_type lora_alpha lora_task_type use_rslora model_revision env config
    router_aux_loss_coef gradient_checkpointing_kwargs disable_dropout label_smoothing
    """
        + _HANDBOOK
    )
    | DPO_ONLY,
    unmodelled={
        **TRL_UNMODELLED,
        "lora_target_parameters": PEFT.unmodelled["target_parameters"],
    },
    refused={
        "desirable_weight": "KTO, not SFT or DPO",
        "undesirable_weight": "KTO, not SFT or DPO",
        **dict.fromkeys(words(_REINFORCEMENT), "reinforcement learning (GRPO, RLOO), not SFT or DPO"),
        "reward_model_path": "reinforcement learning (PPO, RLOO), not SFT or DPO",
        "center_rewards_coefficient": "reward modelling, not SFT or DPO",
    },
    several_gpus=TRAINER_GPUS,
)
