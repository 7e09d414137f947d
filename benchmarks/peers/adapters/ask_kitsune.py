"""torch-kitsune's `lora` command: a total with 15 % overhead; allocated is the total without it."""

from common import answer
from kitsune.predict.hf_integration import load_hf_model
from kitsune.predict.lora_estimator import LoRAConfig, estimate_lora_memory


def ask(question):
    """Everything that it accepts; the model is built on the meta device, as its command does."""
    scenario = question["scenario"]
    model, _ = load_hf_model(question["model"])
    found = estimate_lora_memory(
        model,
        (scenario["seq"],),
        batch_size=scenario["batch"],
        dtype=scenario["compute_dtype"],
        config=LoRAConfig(
            rank=scenario["lora"]["rank"],
            target_modules=tuple(scenario["lora"]["targets"]),
            use_qlora=scenario["method"] == "qlora",
        ),
    )
    return found.total_bytes - found.overhead_bytes, found.total_bytes


answer(ask)
