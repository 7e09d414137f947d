"""What Liger replaces in each family: liger-kernel 0.8.5 transformers/monkey_patch.py, `apply_liger_kernel_to_...`.

It is patched into a loaded model, as transformers' Trainer does it. Patched into the classes before loading (axolotl,
LLaMA-Factory) OLMo 2 loses its norms of queries and keys too, and experts are wrapped by peft as Liger's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vramplan.errors import CannotRun, UsageError
from vramplan.scenario import Scenario
from vramplan.stacks import LayerKernel, LossKernel


@dataclass(frozen=True, slots=True)
class Support:
    """What Liger has for a family."""

    loss: bool = True
    """Whether it replaces the causal model's `forward` by one with the fused loss."""
    kernels: frozenset[LayerKernel] = frozenset(LayerKernel)
    """Operations of the layers; it passes over the others."""
    gate: str = "swiglu"
    """What the argument for the gated MLP is called."""
    not_in_place: frozenset[str] = frozenset()
    """Norms whose gradient is a tensor of its own: elsewhere it takes the place of what came to it."""
    untouched: frozenset[str] = frozenset()
    """Norms that stay the family's own."""


_AFTER = frozenset(("post_attention_layernorm", "post_feedforward_layernorm"))
_ALL_NORMS = _AFTER | {"input_layernorm", "pre_feedforward_layernorm", "q_norm", "k_norm", "norm"}
#: The families of the closed form's table; those that are not here Liger leaves alone. It has no fused loss for
#: Granite, no rotation of interleaved pairs (DeepSeek V2), and leaves gpt-oss its clamped experts.
LIGER: Mapping[str, Support] = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3"), Support()),
    "gemma": Support(gate="geglu"),
    **dict.fromkeys(("gemma2", "gemma3_text"), Support(gate="geglu", not_in_place=_ALL_NORMS)),
    "olmo2": Support(not_in_place=_AFTER, untouched=frozenset(("q_norm", "k_norm"))),
    "granite": Support(loss=False),
    "deepseek_v2": Support(kernels=frozenset((LayerKernel.RMS_NORM, LayerKernel.MLP))),
    "gpt_oss": Support(kernels=frozenset((LayerKernel.ROPE, LayerKernel.RMS_NORM))),
}
NOTHING = Support(loss=False, kernels=frozenset())


def patched(scenario: Scenario) -> Support:
    """Of what Liger has for the scenario's model, what its stack asks for."""
    known = LIGER.get(scenario.architecture.family, NOTHING)
    if not scenario.runs_liger:
        return replace(known, loss=False, kernels=frozenset())
    stack = scenario.stack
    fused = known.loss and stack.loss is LossKernel.LIGER
    return replace(known, loss=fused, kernels=known.kernels.intersection(stack.kernels))


def fuses_loss(family: str) -> bool:
    """Whether Liger has a fused loss for a family of the table."""
    return LIGER.get(family, NOTHING).loss


def trainers_choice(family: str, config: Mapping[str, object]) -> tuple[bool, tuple[LayerKernel, ...]]:
    """Whether `use_liger_kernel` with this `liger_kernel_config` fuses a family's loss, and its kernels."""
    has = LIGER.get(family, NOTHING)
    names = {LayerKernel.MLP: has.gate}
    asked = (kernel for kernel in LayerKernel if config.get(names.get(kernel, kernel.value), True))
    return has.loss and bool(config.get("fused_linear_cross_entropy", True)), in_order(has.kernels.intersection(asked))


def in_order(kernels: Iterable[LayerKernel]) -> tuple[LayerKernel, ...]:
    """The kernels in the order of their names' list, each once."""
    found = {*kernels}
    return tuple(kernel for kernel in LayerKernel if kernel in found)


def check_liger(scenario: Scenario) -> None:
    """Refuse a family that Liger leaves its own operations (there, nothing would be saved); CannotRun for one outside
    the table."""
    if not scenario.runs_liger:
        return
    stack, family = scenario.stack, scenario.architecture.family
    if scenario.architecture.facts.derived:
        raise CannotRun(
            f"what Liger's kernels replace in {family} is not written down",
            hint="use --engine trace, which runs Liger's own code, or stack.kernels: torch and stack.loss: chunked",
        )
    if stack.loss is LossKernel.LIGER and not fuses_loss(family):
        families = ", ".join(sorted(name for name, has in LIGER.items() if has.loss))
        raise UsageError(
            f"stack.loss: Liger has no fused loss for {family}", hint=f"use loss: chunked, or a model of {families}"
        )
    if stack.kernels and family not in LIGER:
        raise UsageError(
            f"stack.kernels: Liger has none for {family}",
            hint=f"use kernels: torch, or a model of {', '.join(sorted(LIGER))}",
        )
