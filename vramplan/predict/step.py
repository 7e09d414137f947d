"""One optimizer step from the second on, as timeline parts: every stack's training loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vramplan.attention import Choice
from vramplan.ledger import Component, Phase
from vramplan.predict.adapters import stepped
from vramplan.predict.backward import run_backward
from vramplan.predict.causal_model import CausalModel, Outcome, called
from vramplan.predict.families import known, unknown_features
from vramplan.predict.graph import Storage
from vramplan.predict.inference import generation
from vramplan.predict.models import with_model
from vramplan.predict.optimizer_step import run_optimizer
from vramplan.predict.overheads import card
from vramplan.predict.preference import preference_loss
from vramplan.predict.structure import structured
from vramplan.predict.tape import FLOATS, INT64, Tape, Tensor
from vramplan.predict.template import Product, Template
from vramplan.record import Device
from vramplan.scenario import Method, QuantType, Scenario
from vramplan.stacks import Outputs
from vramplan.timeline import Marks, Part


def step_parts(scenario: Scenario, device: Device) -> tuple[Part, ...]:
    """FORWARD, LOSS, BACKWARD and STEP of one steady optimizer step, or a generation's PREFILL and DECODE.

    Weights, adapters and states exist already."""
    return _template(scenario, device).parts(scenario.sequences, scenario.seq)


def step_marks(scenario: Scenario, device: Device, granularity: int) -> Marks:
    """The marks of these parts, each block rounded up to `granularity`, without making them."""
    return _template(scenario, device).marks(scenario.sequences, scenario.seq, granularity)


def _template(scenario: Scenario, device: Device) -> Template:
    if not scenario.method.trains:
        return structured(scenario, device, lambda probe: generation(probe, new_tape(probe, device)))
    return structured(
        scenario, device, lambda probe: with_model(probe, lambda model: StepRun(probe, device, model).template())
    )


def settled_biases(scenario: Scenario, device: Device) -> Mapping[str, int]:
    """Bytes per element of the biases of quantised layers, by path, from the first forward on.

    bitsandbytes 0.50.2 nn/modules.py casts them in place, for good: `Linear4bit.forward` to what it computes in,
    `Linear8bitLt.forward` to its input's type. It may undo the preparation's upcast, or be one.
    """
    if scenario.quant.type is QuantType.NONE or scenario.method is Method.MERGE:
        return {}
    return _template(scenario, device).biases


def first_products(scenario: Scenario, device: Device) -> Mapping[Product, int]:
    """Before which of the step's parts the first product of each kind takes a workspace when there is none yet."""
    return _template(scenario, device).products


def clipped(scenario: Scenario, device: Device) -> int | None:
    """The step's block with whose free the clipping of gradients is over; None where they are not clipped."""
    return _template(scenario, device).clipped


def attention_choices(scenario: Scenario, device: Device) -> tuple[Choice, ...]:
    """The kernels that `sdpa` takes, and why; empty for eager attention, flash_attention_2 and a merge."""
    if scenario.method is Method.MERGE:
        return ()
    return tuple(sorted(_template(scenario, device).choices, key=lambda choice: choice.reason))


def step_warnings(scenario: Scenario, device: Device) -> tuple[str, ...]:
    """What the closed form of this step does not know exactly; each sentence points to the trace."""
    if scenario.method is Method.MERGE:  # nothing is computed
        return ()
    found = unknown_features(scenario)
    if scenario.method.trains and not known(scenario.architecture):
        found += tuple(sorted(_template(scenario, device).doubts))
    return tuple(f"{what}: not exact in closed form, use --engine trace" for what in found)


#: Micro-batches of a long step that are run: the first, two that turn out to be alike, and the last.
SAMPLED = 4


@dataclass
class StepRun:
    """Runs the training loop of `training.step` on a tape."""

    scenario: Scenario
    device: Device
    model: type[CausalModel] = CausalModel
    most: int = SAMPLED
    """Micro-batches that are run at most."""
    tape: Tape = field(init=False)

    def __post_init__(self) -> None:
        self.tape = new_tape(self.scenario, self.device)
        self._held: Outcome | list[Storage] | None = None

    def template(self) -> Template:
        """The whole step; outputs that are held into it keep what the step before left of its graph.

        Micro-batches beyond `most` are like those between the first and the last; where these differ, all are run.
        """
        t, scenario = self.tape, self.scenario
        t.enter(Phase.FORWARD)
        if scenario.stack.outputs is Outputs.HELD_NEXT:
            before = StepRun(scenario, self.device, self.model, self.most)
            before._run()
            self._held = [t.inherit(block) for block in before.tape.script.held()]
            del before
        self._run()
        template = t.template()
        more = scenario.grad_accum - self.most
        if more > 0 and not template.lengthen(more):
            return StepRun(scenario, self.device, self.model, scenario.grad_accum).template()
        return template

    def _run(self) -> None:
        """The step; what it leaves to the next one hangs on `_held`."""
        t, scenario = self.tape, self.scenario
        model = self.model(t, scenario)
        t.leaves.clear()
        batches = [self._batch() for _ in range(scenario.grad_accum)]
        for _ in range(min(scenario.grad_accum, self.most)):
            self._micro_batch(model)
        t.enter(Phase.STEP)
        run_optimizer(t, scenario, stepped(scenario))
        if scenario.stack.outputs is not Outputs.HELD_NEXT:
            self._held = None
        model.zero_grad()
        batches.clear()

    def _batch(self) -> list[Tensor]:
        shape = self.scenario.sequences, self.scenario.seq
        return [self.tape.new(shape, INT64, what, Component.ACTIVATIONS) for what in batch_tensors(self.scenario)]

    def _micro_batch(self, model: CausalModel) -> None:
        t = self.tape
        t.enter(Phase.FORWARD)
        if self.scenario.stack.outputs is Outputs.HELD:
            self._held = None
        loss = self._loss(model)
        t.enter(Phase.BACKWARD)
        t.script.keep_for_backward()
        run_backward(t, loss, t.new((), loss.kind, "gradient of the loss"))
        del loss

    def _loss(self, model: CausalModel) -> Tensor:
        if self.scenario.stack.prefers:
            return preference_loss(self.tape, model, Phase.LOSS)
        outputs = called(self.tape, model)
        if self.scenario.stack.outputs is not Outputs.FREED:
            self._held = outputs
        return outputs.loss


def batch_tensors(scenario: Scenario) -> tuple[str, ...]:
    """The tensors of a batch, [sequences, seq] integers of 8 bytes each; a mask of answers takes the labels' place."""
    return ("input_ids", "labels", "attention_mask") if scenario.masked else ("input_ids", "labels")


def new_tape(scenario: Scenario, device: Device) -> Tape:
    """An empty tape for the scenario's card, or the one that is meant where none is named."""
    target = card(scenario)
    tape = Tape(device, target.capability, target.multiprocessors) if target else Tape(device)
    tape.batch, tape.seq = scenario.sequences, scenario.seq
    if scenario.quant.type is not QuantType.NONE:
        tape.flash_kind = FLOATS[scenario.dtype.value]
    return tape
