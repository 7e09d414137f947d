"""ftuneai: a total that adds a fifth for CUDA and fragmentation; allocated is the total without it."""

from common import GIB, answer, checkpointed, flash_like
from ftuneai.core.memory import MemoryEstimator
from ftuneai.core.models import (
    FineTuneMethod,
    LoRATarget,
    ModelSpec,
    OptimizerType,
    Quantization,
    TrainingConfig,
)


def ask(question):
    """Everything that it accepts; the model as a specification of its own, with the exact parameter count."""
    scenario, config = question["scenario"], question["config"]
    heads = config["num_attention_heads"]
    model = ModelSpec(
        name=scenario["model"],
        parameters=question["parameters"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_attention_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        max_seq_length=max(config["max_position_embeddings"], scenario["seq"]),
        default_dtype=scenario["compute_dtype"],
    )
    training = TrainingConfig(
        method=FineTuneMethod(scenario["method"]),
        quantization=Quantization.INT4 if scenario["method"] == "qlora" else Quantization.NONE,
        batch_size=scenario["batch"],
        seq_length=scenario["seq"],
        gradient_checkpointing=checkpointed(scenario),
        optimizer=OptimizerType.ADAM_8BIT if scenario["optimizer"].endswith("8bit") else OptimizerType.ADAMW,
        lora_rank=scenario["lora"]["rank"],
        lora_target=LoRATarget.ATTENTION_ALL,
        flash_attention=flash_like(scenario),
    )
    memory = MemoryEstimator(model, training).estimate()
    return (memory.total_gb - memory.overhead_gb) * GIB, memory.total_gb * GIB


answer(ask)
