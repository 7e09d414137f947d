"""fitcheck-llm: its total is what the process holds on the card; its first five components are tensors."""

from common import MIB, answer, checkpointed, flash_like
from fitcheck.config_parser import ModelConfig, _parse_fields
from fitcheck.estimator import TrainingConfig, estimate
from fitcheck.gpu_db import GPU_DB, GpuSpec, gpu_key_for
from fitcheck.overhead_db import get_overhead_profile

CARDS = {"t4": "t4", "a100-80gb": "a100-80"}  # it has no RTX 4080
PRECISIONS = {"float16": "fp16", "bfloat16": "bf16"}


def ask(question):
    """Everything that it accepts, the exact parameter count included."""
    scenario = question["scenario"]
    fields = _parse_fields(question["config"])
    model = ModelConfig(
        name=scenario["model"],
        num_params=question["parameters"],
        **{name: getattr(fields, name) for name in fields.__dataclass_fields__},
    )
    training = TrainingConfig(
        precision=PRECISIONS[scenario["compute_dtype"]],
        quantization=scenario["quant"]["type"],
        double_quant=scenario["quant"]["double"],
        optimizer="adam8bit" if scenario["optimizer"].endswith("8bit") else "adamw",
        batch_size=scenario["batch"],
        seq_len=scenario["seq"],
        lora_rank=scenario["lora"]["rank"],
        lora_targets=list(scenario["lora"]["targets"]),
        grad_checkpoint=checkpointed(scenario),
        flash_attn=flash_like(scenario),
    )
    card = CARDS.get(scenario["gpu"])
    spec = GPU_DB[card] if card else GpuSpec("other", 16_384, 15_000)
    report = estimate(model, training, spec)
    profile = get_overhead_profile(gpu_key_for(spec), training.flash_attn, training.quantization)
    return (report.total_mib - report.overhead_mib) * MIB, (report.total_mib - profile.base_context_mib) * MIB


answer(ask)
