"""canifinetune: its target is the process's peak reserved; the safety margin is stated apart and left out here."""

from canifinetune.estimator.memory import EstimateRequest, estimate
from common import GIB, answer, checkpointed

GPU_GIB = {"t4": 15, "rtx4080": 16, "a100-80gb": 80}
ATTENTION = {"eager": "eager", "flash_attention_2": "flash_attention_2"}


def ask(question):
    """Everything that it accepts; the exact parameter count and shape as its override."""
    scenario, config = question["scenario"], question["config"]
    double = "nf4_double_quant" if scenario["quant"]["double"] else "nf4"
    request = EstimateRequest(
        model_id=scenario["model"],
        method=scenario["method"],
        seq_len=scenario["seq"],
        micro_batch_size=scenario["batch"],
        base_dtype={"float16": "fp16", "bfloat16": "bf16"}[scenario["compute_dtype"]],
        quantization=double if scenario["method"] == "qlora" else "none",
        lora_rank=scenario["lora"]["rank"],
        lora_dropout=scenario["lora"]["dropout"],
        lora_target_scope="attention",
        optimizer=scenario["optimizer"],
        gradient_checkpointing=checkpointed(scenario),
        attention_implementation=ATTENTION.get(scenario["attention"], "sdpa"),
        gpu_vram_gb=GPU_GIB[scenario["gpu"]],
        use_network=False,
        override={
            **{key: config[key] for key in SHAPE if key in config},
            "family": config["model_type"],
            "total_params": question["parameters"],
        },
    )
    memory = estimate(request).memory
    reserved = memory.total_estimated_gb - memory.safety_margin_gb
    return (reserved - memory.cuda_overhead_gb) * GIB, reserved * GIB


SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
)
answer(ask)
