"""Keys of peft's adapter_config.json (peft 0.21.2: tuners/lora/config.py)."""

from vramplan.importers.keys import Format
from vramplan.importers.vocabulary.base import vocabulary, words

PEFT = vocabulary(
    Format.PEFT,
    "peft adapter",
    "peft 0.21.2",
    decisive="peft_type",
    read="base_model_name_or_path r lora_dropout target_modules use_dora modules_to_save",
    harmless=words(
        """
    auto_mapping peft_version revision inference_mode lora_alpha fan_in_fan_out use_rslora init_lora_weights
    alpha_pattern megatron_config megatron_core loftq_config eva_config corda_config lora_ga_config qalora_group_size
    task_type ensure_weight_tying layers_pattern runtime_config
    """
    ),
    unmodelled={
        "exclude_modules": "leaves some modules without an adapter",
        "layers_to_transform": "adapts some layers only",
        "rank_pattern": "gives some modules another rank",
        "layer_replication": "repeats layers",
        "trainable_token_indices": "trains rows of the embedding",
        "target_parameters": "adapts bare parameters beside the modules",
        "bias": "trains biases beside the adapters",
        "lora_bias": "gives every adapter a bias",
        "use_qalora": "pools the adapters' inputs",
        "use_bdlora": "makes the adapters block-diagonal",
        "arrow_config": "routes between several adapters",
        "velora_config": "compresses what the adapters keep",
        "monteclora_config": "trains more than the adapters",
        "alora_invocation_tokens": "applies the adapters to a part of the sequence",
        "kasa_config": "trains singular values too",
    },
    refused={},
    several_gpus="",
)
