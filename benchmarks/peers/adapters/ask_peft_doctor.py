"""peft-doctor: a total with an overhead for fragmentation; allocated is the total without it."""

from common import GIB, answer, checkpointed
from peft_doctor.estimator import estimate_vram_gb


def ask(question):
    """Everything that it accepts."""
    scenario, config = question["scenario"], question["config"]
    report = estimate_vram_gb(
        scenario["model"],
        seq_len=scenario["seq"],
        batch_size=scenario["batch"],
        qlora=scenario["method"] == "qlora",
        gradient_checkpointing=checkpointed(scenario),
        params_billion=question["parameters"] / 1e9,
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
    )
    details = next(issue.details for issue in report.issues if issue.code == "estimate.total_vram")
    total = report.metadata["estimated_total_gb"]
    return (total - details["overhead_gb"]) * GIB, total * GIB


answer(ask)
