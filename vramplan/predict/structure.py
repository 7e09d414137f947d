"""Which scenarios have the same step but for sizes, so that one run of the tape serves all of them."""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from vramplan.attention import MASK_ALIGNMENT
from vramplan.predict.gemm_4bit import NEVER_FUSED_ROWS
from vramplan.predict.keyed import Keyed
from vramplan.predict.template import Template
from vramplan.record import Device
from vramplan.scenario import Scenario
from vramplan.stacks import LossKernel

#: Batches and sequences to probe with: primes larger than most sizes of a model, and found in none.
_BATCH = 1013
_SEQUENCES = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071, 262139, 1048573)

#: The same where masks need no copy into longer rows: multiples of 8, which no prime is.
_ALIGNED = tuple(8 * prime for prime in (31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071))

Build = Callable[[Scenario], Template]


def structured(scenario: Scenario, device: Device, build: Build) -> Template:
    """The template of `scenario`'s run, which serves every scenario that differs in batch and sequence alone."""
    probe = _probe(scenario, device) or scenario
    # neither the run's name nor, in training, the tokens that inference would generate decide anything
    bare = msgspec.structs.replace(probe, name="", new_tokens=0 if scenario.method.trains else probe.new_tokens)
    return _templates(Keyed((device, bare.key), lambda: build(probe)))


@lru_cache(maxsize=128)
def _templates(wanted: Keyed[Template]) -> Template:
    return wanted.make()


def _probe(scenario: Scenario, device: Device) -> Scenario | None:
    """The scenario with primes for batch and sequence; None when the step depends on them in other ways than size.

    Such ways: a batch of one makes some copies views, a window no longer than the sequence needs a mask, a mask's rows
    are copied unless they are a multiple of 8, few rows make bitsandbytes' kernels fused, a loss in chunks, and
    Liger's routing of experts, have as many pieces as the tokens fill, and what the code of a family outside the table
    makes of them is not written down.
    """
    if scenario.stack.loss is not LossKernel.TORCH or scenario.architecture.facts.derived:
        return None
    if scenario.stack.kernels and scenario.architecture.mixes_experts:
        return None
    # The fewest rows of a product: when decoding, a token per sample.
    fewest = scenario.tokens if scenario.method.trains else scenario.batch
    if device == "cuda" and scenario.quant.type.four_bit and fewest <= NEVER_FUSED_ROWS:
        return None
    batch = 1 if scenario.batch == 1 else _BATCH
    windows = {block.attention.window for block in scenario.architecture.blocks} - {0}
    sizes = {extent for weight, _ in scenario.architecture.counted for extent in weight.shape}
    masked = device == "cuda" and (scenario.padding or windows)
    for seq in _ALIGNED if masked and scenario.seq % MASK_ALIGNMENT == 0 else _SEQUENCES:
        alike = all((window <= seq) == (window <= scenario.seq) for window in windows)
        rows = device == "cpu" or batch * seq > NEVER_FUSED_ROWS
        if alike and rows and not any(size % seq == 0 or size % _BATCH == 0 for size in sizes):
            return msgspec.structs.replace(scenario, batch=batch, seq=seq)
    return None
