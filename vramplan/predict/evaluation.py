"""Evaluation inside training as timeline parts: the last steps of transformers 5.17 `Trainer.evaluation_loop`.

What is gathered on the device grows with every step: each batch of logits is concatenated with those before it, so
that at the last step they exist twice.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from vramplan.ledger import Component, Phase
from vramplan.predict.causal_model import CausalModel, Outcome, autocast_kind, called
from vramplan.predict.first_step import changed
from vramplan.predict.models import with_model
from vramplan.predict.preference import preference_loss
from vramplan.predict.step import batch_tensors, new_tape
from vramplan.predict.structure import structured
from vramplan.predict.tape import BFLOAT16, FLOAT32, FLOATS, INT64, Kind, Tape, Tensor
from vramplan.predict.template import Template
from vramplan.record import Device
from vramplan.scenario import Evaluation, Scenario
from vramplan.stacks import LossKernel, Stack, Upcast
from vramplan.timeline import EmptyCache, Marks, Part

#: More steps than this are never taken for a multiple of the primes that a template is probed with.
_FEW_STEPS = 200
#: So many steps are written out at most: each leaves free segments that are too small for what the next one gathers.
_WRITTEN = 8
#: Block numbers of an evaluation begin here, above those of any step.
_FIRST_BLOCK = 1 << 40


def evaluation_parts(scenario: Scenario, device: Device) -> tuple[Part, ...]:
    """EVALUATION, between two steps; nothing when the scenario has none."""
    settings = scenario.evaluation
    if settings is None:
        return ()
    evaluated = _evaluated(scenario, settings)
    parts = _renumbered(_template(evaluated, settings, device).parts(evaluated.sequences, scenario.seq))
    # trainer.py evaluation_loop: whenever what was gathered has gone to the host
    emptied = settings.accumulate and scenario.stack.trainer and device == "cuda"
    return (*parts, EmptyCache()) if emptied else parts


def evaluation_marks(scenario: Scenario, device: Device, granularity: int) -> Marks | None:
    """The marks of these parts, without making them; None when the scenario has none."""
    if scenario.evaluation is None:
        return None
    evaluated = _evaluated(scenario, scenario.evaluation)
    template = _template(evaluated, scenario.evaluation, device)
    return template.marks(evaluated.sequences, scenario.seq, granularity)


def _evaluated(scenario: Scenario, evaluation: Evaluation) -> Scenario:
    """One of its steps as a scenario."""
    return replace(
        scenario,
        batch=evaluation.batch,
        grad_accum=1,
        optimizer="",  # nothing is optimised: no step has this key
        lora=replace(scenario.lora, dropout=0.0),
        stack=_evaluated_stack(scenario.stack),
    )


def _template(evaluated: Scenario, evaluation: Evaluation, device: Device) -> Template:
    if evaluation.accumulate > _FEW_STEPS:
        return with_model(evaluated, lambda model: _run(evaluated, evaluation.accumulate, device, model))
    return structured(
        evaluated,
        device,
        lambda probe: with_model(probe, lambda model: _run(probe, evaluation.accumulate, device, model)),
    )


def _evaluated_stack(stack: Stack) -> Stack:
    """liger-kernel 0.8.5 transformers/model/llama.py: a model that is not in training mode makes its logits."""
    return replace(stack, loss=LossKernel.TORCH) if stack.loss is LossKernel.LIGER else stack


def _run(scenario: Scenario, steps: int, device: Device, made: type[CausalModel]) -> Template:
    """The steps until what was gathered goes to the host; with 0 steps nothing is gathered."""
    t = new_tape(scenario, device)
    t.training = False
    t.enter(Phase.EVALUATION)
    with t.no_grad():
        model = made(t, scenario)
        t.leaves.clear()
        _steps(t, model, scenario, steps)
    return t.template()


def _steps(t: Tape, model: CausalModel, s: Scenario, steps: int) -> None:
    """The last of so many steps, written out; what earlier ones gathered is there from the start."""
    first = max(1, steps - _WRITTEN + 1)
    gathered = [*_gathered(t, s, first - 1, "gathered before")] if first > 1 else []
    # `logits` and `labels` of the step before are variables of the loop; after the first they are what is gathered
    variables = [*_gathered(t, s, 1, "of the step before")] if first > 2 else [*gathered]
    for step in range(first, max(steps, 1) + 1):
        batch = [t.new((s.sequences, s.seq), INT64, what) for what in batch_tensors(s)]
        outputs = _call(t, model, s)
        variables = [*_given(outputs), batch[1]] if steps else []
        gathered = gathered if step > 1 else [*variables]
        for place, made in enumerate(_gathered(t, s, step, "gathered") if step > 1 else ()):
            gathered[place] = made  # what was there goes before the next is made
        del batch, outputs
    if not t.cuda and gathered and gathered[0].kind is BFLOAT16:
        # trainer_pt_utils.py nested_numpify: NumPy has no bfloat16
        gathered.append(_logits(t, s, steps, FLOAT32, "logits for NumPy"))
    del variables, gathered


def _gathered(t: Tape, s: Scenario, steps: int, what: str) -> Iterator[Tensor]:
    """Logits, if the loss makes any, and labels of `steps` steps, made one after the other."""
    if s.stack.loss is LossKernel.TORCH:
        yield _logits(t, s, steps, logits_kind(s), f"logits {what}")
    yield t.new((steps * s.sequences, s.seq), INT64, f"labels {what}")


def _given(outputs: Outcome) -> list[Tensor]:
    return [] if outputs.logits is None else [outputs.logits]


def _logits(t: Tape, s: Scenario, steps: int, kind: Kind, label: str) -> Tensor:
    return t.new((steps * s.sequences, s.seq, s.architecture.vocab), kind, label, Component.LOGITS)


def logits_kind(scenario: Scenario) -> Kind:
    """The element type of the logits that a training step's model returns: autocast's, which accelerate makes fp32
    under the Trainer, else the head's."""
    stack = scenario.stack
    autocast = autocast_kind(stack)
    if autocast is not None:
        return FLOAT32 if stack.trainer else autocast
    return FLOAT32 if stack.upcast is Upcast.ALL else FLOATS[scenario.dtype.value]


def _call(t: Tape, model: CausalModel, s: Scenario) -> Outcome:
    if s.stack.prefers:
        return Outcome(preference_loss(t, model, Phase.EVALUATION), None)
    return called(t, model, Phase.EVALUATION)


def _renumbered(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts with block numbers that no step has: outputs may be held past its end."""
    return tuple(changed(parts, lambda part: part._replace(block=part.block + _FIRST_BLOCK)))
