"""What TRL's trainers keep for the loss that balances a mixture's experts: what each layer's router said of them all.

trl 1.16 trainer/sft_trainer.py and dpo_trainer.py (`aux_loss_enabled`), transformers 5.17 models/mixtral
`load_balancing_loss_func`: the scores of all layers are kept until the loss is there, and its backward begins with
their gradients, which are as large and wait for their layers. What lies between, softmaxes and sums, is not written
down: in SFT it is gone by then, in DPO it waits while the reference runs (0.1 % of a Qwen3 30B's peak without
checkpoints). Nor is what reentrant checkpoints keep until the loss: their forward has no graph for gradients.
"""

from collections.abc import Callable

from vramplan.predict.checkpoints import Returned
from vramplan.predict.modules import Modules
from vramplan.predict.tape import Tape, Tensor
from vramplan.scenario import Checkpointing, Scenario

#: Families with `output_router_logits` in their configuration; their weight is not 0 where config.json does not say it.
_FAMILIES = ("mixtral", "qwen3_moe", "gpt_oss")


def keeping_scores(
    t: Tape, scenario: Scenario, layer: Modules, run: Callable[[Tensor], Returned], hidden: Tensor
) -> Returned:
    """What the layer returns when it is `run` on `hidden`; the graph keeps the scores until its backward is through."""
    graph = t.training and t.recording and scenario.checkpointing is not Checkpointing.REENTRANT
    if not (graph and balances(scenario)):
        return run(hidden)
    layer.scores = kept = list[Tensor]()
    # The layer's last node in backward; without checkpoints nothing in front of the first layer has a gradient.
    first = hidden.node is None
    through = hidden if first else t.record(t.view(hidden, hidden.shape), (hidden,), [], lambda saved, grad: (grad,))
    out, second = run(through)
    layer.scores = None
    node = out.node if first else through.node
    assert node is not None
    node.saved += kept
    return out, second


def balances(scenario: Scenario) -> bool:
    """Whether the trainer adds that loss."""
    unwanted = scenario.model.config.get("router_aux_loss_coef") == 0
    return scenario.stack.balances and scenario.architecture.family in _FAMILIES and not unwanted
