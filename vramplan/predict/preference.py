"""The loss of preference training: how the model scores two answers, compared with how it did without its adapters.

trl 1.16 trainer/dpo_trainer.py `_compute_loss` with the defaults of its DPOConfig: the model's forward, then that of
the reference, which is the model with its adapters switched off, without a graph.
"""

from msgspec.structs import replace

from vramplan.ledger import Phase
from vramplan.predict.causal_model import CausalModel, autocast_kind
from vramplan.predict.fused_head import HeadOutputs, places_of
from vramplan.predict.operations.gradients import own_gradient
from vramplan.predict.tape import BOOL, FLOAT32, INT64, Tape, Tensor
from vramplan.scenario import Scenario


def preference_loss(t: Tape, model: CausalModel, phase: Phase) -> Tensor:
    """The loss of a micro-batch; what follows the model's last layer belongs to `phase`, and so does the reference."""
    autocast = autocast_kind(model.scenario.stack)
    shape = model.scenario.sequences, model.scenario.seq
    prompt = t.new(shape, BOOL, "tokens of the prompt")
    labels = t.new(shape, INT64, "labels")
    del prompt
    with t.casting(autocast):
        found = model.head_outputs(phase)
    summed = t.new((shape[0],), FLOAT32, "log-probabilities of the answers")
    with t.no_grad():
        reference = type(model)(t, _without_adapters(model.scenario))
        t.leaves.clear()  # no gradient comes to what it has; the model took note of its own when it was made
        with t.casting(autocast):
            expected = reference.head_outputs(phase)
        other = t.new((shape[0],), FLOAT32, "log-probabilities of the answers, by the reference")
    # backward fills the slice of the last `seq - 1` tokens, which are all, into zeros
    loss = own_gradient(t, found.logs, t.new((), FLOAT32, "loss"), "log-probabilities' gradient")
    _metrics(t, found)
    del labels, summed, expected, other
    return loss


def _without_adapters(scenario: Scenario) -> Scenario:
    """peft's `disable_adapter`: the base as it is; copies of whole modules give way to what they are copies of."""
    return replace(scenario, lora=replace(scenario.lora, targets=(), modules_to_save=()))


def _metrics(t: Tape, found: HeadOutputs) -> None:
    """What is logged, in the order of the code: entropy, logits of the answers, how many labels come first."""
    sequences, tokens = found.labelled.shape
    t.new((sequences, tokens), FLOAT32, "entropies of the answers")
    half = sequences // 2, tokens
    for answer in ("chosen", "rejected"):
        truths = t.new(half, BOOL, f"tokens of the {answer} answers")
        places = places_of(t, truths)
        t.new((truths.numel,), FLOAT32, f"logits of the {answer} answers")
        del truths, places
    truths = t.new(half, BOOL, "tokens of the chosen answers")
    t.new(half, BOOL, "chosen answers' labels that come first")
    del truths
