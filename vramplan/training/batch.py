"""The data of a step: random tokens, the same ones every time, so that the loss must fall."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from vramplan.ledger import Component
from vramplan.scenario import Scenario
from vramplan.training.meter import Meter

Batch = dict[str, Tensor]
Row = dict[str, list[int]]


def make_batches(scenario: Scenario, vocabulary: int, device: torch.device, meter: Meter) -> list[Batch]:
    """The micro-batches of one optimizer step on the device; the Trainer fetches all of them before the first forward.

    Without padding there is no attention mask, but from TRL's collator: with one of ones transformers takes the same
    causal path.
    """
    generator = torch.Generator().manual_seed(0)
    return [_batch(scenario, vocabulary, generator, device, meter) for _ in range(scenario.grad_accum)]


def make_evaluation_batch(scenario: Scenario, samples: int, vocabulary: int, device: torch.device) -> Batch:
    """A batch of an evaluation: other tokens than the training's."""
    generator = torch.Generator().manual_seed(1)
    return _made(scenario, samples, vocabulary, generator, device)


class Rows:
    """Samples as a data set holds them, in no tensor (a collator makes those), made when the first one is asked for.

    There are `length` of them; where fewer are made, they come again.
    """

    def __init__(self, length: int, make: Callable[[], list[Batch]]) -> None:
        self._length = length
        self._make = make

    @cached_property
    def _rows(self) -> list[Row]:
        columns = [{name: tensor.tolist() for name, tensor in batch.items()} for batch in self._make()]
        return [dict(zip(part, row, strict=True)) for part in columns for row in zip(*part.values(), strict=True)]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row:
        return self._rows[index % len(self._rows)]


def _batch(
    scenario: Scenario, vocabulary: int, generator: torch.Generator, device: torch.device, meter: Meter
) -> Batch:
    batch = _made(scenario, scenario.batch, vocabulary, generator, device)
    name_batch(batch, meter)
    return batch


def name_batch(batch: Batch, meter: Meter) -> None:
    """Name what is fed to the model."""
    for name, tensor in batch.items():
        meter.name(tensor, Component.ACTIVATIONS, name)


def _made(scenario: Scenario, samples: int, vocabulary: int, generator: torch.Generator, device: torch.device) -> Batch:
    """Random tokens. Padded as TRL's collators do it: on the right, without a label, with a zero in the mask.

    One token of padding is enough: where there is any, masks and copies have the same sizes whatever its share is.
    """
    pairs = scenario.stack.prefers
    shape = samples * scenario.stack.sequences_per_sample, scenario.seq
    ids = torch.randint(vocabulary, shape, generator=generator).to(device)
    batch = {"input_ids": ids}
    if scenario.masked:
        batch["attention_mask"] = torch.ones_like(ids)
    # A pair's answers have no prompt: so every token has a label, which is the most.
    name, targets, nothing = ("completion_mask", torch.ones_like(ids), 0) if pairs else ("labels", ids.clone(), -100)
    batch[name] = targets
    if scenario.padding:
        batch[name][-1, -1] = nothing
        batch["attention_mask"][-1, -1] = 0
    return batch
