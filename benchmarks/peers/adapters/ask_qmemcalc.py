"""qmemcalc: a total with a tenth for buffers; allocated is the total without it. Its MB are 10^6 bytes."""

from common import answer, checkpointed
from qmemcalc import estimate_memory


def ask(question):
    """Everything that it accepts; it derives the parameter count itself and takes no other."""
    scenario = question["scenario"]
    found = estimate_memory(
        question["model"],
        scenario["batch"],
        scenario["seq"],
        lora_r=scenario["lora"]["rank"],
        precision={"float16": "fp16", "bfloat16": "bf16"}[scenario["compute_dtype"]],
        quantization="4bit" if scenario["method"] == "qlora" else "none",
        optimizer="adamw",
        gradient_checkpointing=checkpointed(scenario),
    )
    return (found["total_MB"] - found["buffers_MB"]) * 1e6, found["total_MB"] * 1e6


answer(ask)
