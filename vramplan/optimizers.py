"""The optimizers that are modelled, by transformers' `OptimizerNames` spelling (training_args.py, 5.17)."""

from vramplan.errors import UsageError, nearest

OPTIMIZERS = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "sgd",
    "adafactor",
    "adagrad",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "lion_32bit",
    "lion_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
)


def check_optimizer(name: str) -> str:
    """`name`, when it is an optimizer whose states are known; otherwise a UsageError with the nearest one."""
    if name in OPTIMIZERS:
        return name
    hint = f"{nearest(name, OPTIMIZERS)}allowed: {', '.join(OPTIMIZERS)}"
    raise UsageError(f"unknown optimizer '{name}'", hint=hint)
