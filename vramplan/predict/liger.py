"""What Liger's kernels replace in each family: liger-kernel 0.8.5 transformers/monkey_patch.py."""

from dataclasses import dataclass

from vramplan.errors import CannotRun, UsageError
from vramplan.scenario import Scenario
from vramplan.stacks import LayerKernel, LossKernel


@dataclass(frozen=True, slots=True)
class Patched:
    """What `apply_liger_kernel_to_...` replaces in a family when it is asked for."""

    loss: bool = True
    """The causal model's `forward`, by one with the fused loss."""
    kernels: frozenset[LayerKernel] = frozenset(LayerKernel)
    """Operations of its layers; Liger passes over the others."""
    apart: frozenset[str] = frozenset()
    """Norms whose gradient is a tensor of its own: elsewhere it takes the place of what came to it."""
    untouched: frozenset[str] = frozenset()
    """Norms that stay the family's own."""


_AFTER = frozenset(("post_attention_layernorm", "post_feedforward_layernorm"))
_GEMMA = _AFTER | {"input_layernorm", "pre_feedforward_layernorm", "q_norm", "k_norm", "norm"}
#: The families of the closed form's table. Liger has no fused loss for Granite, no rotation of interleaved pairs
#: (DeepSeek V2), and leaves gpt-oss its clamped experts.
LIGER: dict[str, Patched] = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3", "gemma"), Patched()),
    **dict.fromkeys(("gemma2", "gemma3_text"), Patched(apart=_GEMMA)),
    "olmo2": Patched(apart=_AFTER, untouched=frozenset(("q_norm", "k_norm"))),
    "granite": Patched(loss=False),
    "deepseek_v2": Patched(kernels=frozenset((LayerKernel.RMS_NORM, LayerKernel.MLP))),
    "gpt_oss": Patched(kernels=frozenset((LayerKernel.ROPE, LayerKernel.RMS_NORM))),
}
_NONE = Patched(loss=False, kernels=frozenset())


def patched(scenario: Scenario) -> Patched:
    """What the scenario's stack has Liger replace in its model."""
    known = LIGER.get(scenario.architecture.family, _NONE)
    asked = scenario.stack.kernels if scenario.method.trains else ()
    return Patched(known.loss, known.kernels.intersection(asked), known.apart, known.untouched)


def fuses_loss(family: str) -> bool:
    """Whether Liger's loss is written down for a family."""
    return LIGER.get(family, _NONE).loss


def check_liger(scenario: Scenario) -> None:
    """Refuse a family that Liger leaves its own operations (there, nothing would be saved), or that is not in the
    table."""
    stack, family = scenario.stack, scenario.architecture.family
    if not (scenario.method.trains and stack.liger):
        return
    if scenario.architecture.facts.get("derived"):
        raise CannotRun(
            f"what Liger's kernels replace in {family} is not written down",
            hint="use --engine trace, which runs Liger's own code, or stack.kernels: torch and stack.loss: chunked",
        )
    if stack.loss is LossKernel.LIGER and not fuses_loss(family):
        families = ", ".join(sorted(name for name in LIGER if fuses_loss(name)))
        raise UsageError(
            f"stack.loss: Liger has no fused loss for {family}", hint=f"use loss: chunked, or a model of {families}"
        )
    if stack.kernels and family not in LIGER:
        raise UsageError(
            f"stack.kernels: Liger has none for {family}",
            hint=f"use kernels: torch, or a model of {', '.join(sorted(LIGER))}",
        )
