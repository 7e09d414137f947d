"""A run in a few words: its method; its training loop's name, and in what it differs from the loop of that name."""

from collections.abc import Iterator

from vramplan.scenario import QuantType, Scenario
from vramplan.stacks import STACKS, LossKernel, Stack, Upcast


def method_words(scenario: Scenario) -> Iterator[str]:
    """`qlora`, `nf4 with double quantisation`, `rank 16 on all-linear`, `adamw_torch`: what of it the method has."""
    yield scenario.method.value
    if scenario.quant.type is not QuantType.NONE:
        yield scenario.quant.type.value + (" with double quantisation" if scenario.quant.double else "")
    if scenario.method.adapts:
        yield scenario.lora.words
    if scenario.method.trains:
        yield scenario.optimizer


def stack_words(scenario: Scenario) -> str:
    """`script, outputs freed, no autocast`."""
    quantised = scenario.quant.type is not QuantType.NONE
    return ", ".join((scenario.stack.base, *_differences(scenario.stack, STACKS[scenario.stack.base], quantised)))


def batch_words(scenario: Scenario, batch: int = 0) -> str:
    """`2`, or `2 pairs`: of the scenario's micro-batch, or of another one."""
    samples = batch or scenario.batch
    return scenario.stack.counted(samples) if scenario.method.trains else f"{samples}"


def _differences(stack: Stack, named: Stack, quantised: bool) -> Iterator[str]:
    if stack.outputs is not named.outputs:
        yield f"outputs {stack.outputs.value}"
    if stack.loss is not named.loss:
        yield "Liger's loss" if stack.loss is LossKernel.LIGER else f"{stack.loss.value} loss"
    if stack.kernels:
        yield f"Liger's {'+'.join(stack.kernels)}"
    if bool(stack.autocast) != bool(named.autocast):
        yield "autocast" if stack.autocast else "no autocast"
    if stack.upcast is not (named.upcast if quantised else Upcast.NONE):
        yield f"upcast {stack.upcast.value}"
    if stack.clip != named.clip:
        yield "clipping" if stack.clip else "no clipping"
