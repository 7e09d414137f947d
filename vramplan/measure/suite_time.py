"""About how long a measurement takes on a large card: for planning a suite, never for a figure that is reported."""

import msgspec

from vramplan.predict.merge import saved_bytes
from vramplan.scenario import Checkpointing, Evaluation, Method, QuantType, Scenario

#: Floating-point operations per second of a training step's bf16 matrix products: on the largest card that the chunks
#: are cut for they could be 790e12 (dense), of which a step reaches this share.
_FLOPS = 0.4 * 790e12
#: Bytes per second of a pass that dequantises, and its bytes per parameter: half a byte read, two written.
_BANDWIDTH = 2e12
_DEQUANTIZED = 2.5
#: Seconds in which a process starts and imports its libraries.
_START = 20.0
#: Parameters made and quantised per second, and bytes written to a disk.
_BUILT = 1e9
_WRITTEN = 1e9


def seconds(scenario: Scenario, steps: int) -> float:
    """All of a run: the load, a warm-up, a clean step, an attributed one (which takes twice as long), timed ones."""
    built = scenario.architecture.numel / _BUILT
    if scenario.method is Method.MERGE:  # each run loads, merges and saves; none warms up
        return _START + (steps + 2) * (built + saved_bytes(scenario) / _WRITTEN)
    # warm-up, clean and attributed steps evaluate, timed ones do not
    evaluated = 0.0 if scenario.evaluation is None else 3 * _evaluation_seconds(scenario, scenario.evaluation)
    return _START + built + (steps + 4) * _step_seconds(scenario) + evaluated


def _evaluation_seconds(scenario: Scenario, settings: Evaluation) -> float:
    """The forward passes of an evaluation."""
    tokens = msgspec.structs.replace(scenario, batch=settings.batch).tokens * max(1, settings.accumulate)
    return 2 * scenario.architecture.numel * tokens / _FLOPS


def _step_seconds(scenario: Scenario) -> float:
    """Forward, backward, the recomputed forward, and weight gradients where weights are trained."""
    passes = 1.0
    if scenario.method.trains:
        recomputed = scenario.checkpointing is not Checkpointing.OFF
        passes = 2.0 + recomputed + (scenario.method is Method.FULL)
    numel = scenario.architecture.numel
    flops = 2 * numel * scenario.tokens + _attention_flops(scenario)
    dequantized = 0.0 if scenario.quant.type is QuantType.NONE else _DEQUANTIZED * numel / _BANDWIDTH
    generated = 0.0 if scenario.method.trains else scenario.new_tokens * dequantized
    return passes * (flops / _FLOPS + dequantized) * scenario.grad_accum + generated


def _attention_flops(scenario: Scenario) -> float:
    architecture = scenario.architecture
    return 4.0 * scenario.sequences * scenario.seq**2 * architecture.hidden * len(architecture.layers)
