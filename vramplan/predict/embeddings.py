"""What stands before the first layer: the embedding, with its adapter where it has one, and learned positions."""

from collections.abc import Callable

from vramplan.architecture import WeightKind
from vramplan.predict.dropouts import active
from vramplan.predict.linear import Adapter, lowered
from vramplan.predict.modules import Modules
from vramplan.predict.operations import add, cast, dropout, scale
from vramplan.predict.operations.gradients import own_gradient
from vramplan.predict.operations.products import product
from vramplan.predict.positions import makes_mask
from vramplan.predict.tape import FLOAT32, INT64, Gradients, Kind, Shape, Tape, Tensor
from vramplan.scenario import Checkpointing, Scenario

#: What OPT makes of a batch without a mask (transformers 5.17 models/opt/modeling_opt.py).
_OWN_MASK = ((FLOAT32, "mask of ones"), (INT64, "position_ids"))


def embed(
    t: Tape, outside: Modules, scenario: Scenario, between: Callable[[Kind], None]
) -> tuple[Tensor, list[Tensor]]:
    """The first layer's input, and what else the model's forward keeps in its variables while the layers run.

    `between` makes the masks, for an embedding of that type: OPT has them before its learned positions.
    """
    t.scope = "embedding"
    scaled = scenario.architecture.facts.scaled_embedding
    outside_module = scenario.architecture.family == "granite"  # Gemma scales inside its embedding's module
    hidden = _module(t, outside, scenario, scaled=scaled and not outside_module)
    trains = scenario.method.trains and scenario.checkpointing is not Checkpointing.OFF
    if trains and hidden.node is None:
        t.require_grad(hidden)  # the hook of `enable_input_require_grads`, on the embedding's own output
    if scaled and outside_module:
        hidden = scale(t, hidden, "scaled output")
    held = [hidden]
    if makes_mask(scenario):
        outer, t.scope = t.scope, ""
        held += [t.new((scenario.sequences, scenario.seq), kind, what) for kind, what in _OWN_MASK]
        between(hidden.kind)
        t.scope = outer
    hidden = _positioned(t, outside, scenario, hidden, held)
    if active(t, scenario).embedding:
        hidden = dropout(t, hidden)
    t.scope = ""
    if not makes_mask(scenario):
        between(held[0].kind)
    return hidden, held


def _positioned(t: Tape, outside: Modules, scenario: Scenario, hidden: Tensor, held: list[Tensor]) -> Tensor:
    """Learned positions added (GPT-2: one row for the whole batch; OPT: one per sequence)."""
    architecture = scenario.architecture
    tables = [w for w in architecture.before if w.kind is WeightKind.EMBEDDING and w != architecture.table]
    if not tables:
        return hidden
    batch = scenario.sequences if makes_mask(scenario) else 1
    held.append(lookup(t, outside.tensors[tables[0].path], (batch, scenario.seq)))
    return add(t, hidden, held[-1], "embeddings with positions")


def lookup(t: Tape, table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`nn.Embedding`: rows of the table; a trained table gets a dense gradient of its own size."""
    out = t.new((*shape, table.shape[-1]), table.kind, "output")
    return own_gradient(t, table, out, "table gradient")


def _module(t: Tape, outside: Modules, scenario: Scenario, *, scaled: bool) -> Tensor:
    """The embedding's output; with an adapter as in peft 0.21.2 tuners/lora/layer.py `Embedding.forward`."""
    architecture = scenario.architecture
    rows = lookup(t, outside.table(architecture), (scenario.sequences, scenario.seq))
    if scaled:
        rows = scale(t, rows, "scaled output")
    adapter = outside.tables.get(architecture.table.path)
    if adapter is None:
        return rows
    kind, shape = rows.kind, rows.shape
    low = lookup(t, _transposed(t, adapter.a), shape[:-1])
    delta = scale(t, _times_b(t, low, adapter, shape))
    if scaled:
        delta = scale(t, delta, "adapter output, scaled as the embedding is")
    rows = add(t, rows, delta, "output with adapter")
    return cast(t, rows, kind, "output")


def _times_b(t: Tape, low: Tensor, adapter: Adapter, shape: Shape) -> Tensor:
    """`after_A @ embedding_B`: of what autocast makes of both."""
    right = lowered(t, _transposed(t, adapter.b), "lora_B cast")
    left = lowered(t, low, "input cast")
    labels = "lora_B output: input gradient", "lora_B output: weight gradient"
    out = product(t, left, right, shape, "lora_B output", gradients=labels)
    t.product()
    return out


def _transposed(t: Tape, factor: Tensor) -> Tensor:
    """`factor.T`: a view, and so is the gradient."""
    out = t.view(factor, factor.shape[::-1])
    shape = factor.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        turned = t.view(grad, shape)
        turned.transposed = True
        return (turned,)

    return t.record(out, (factor,), [], backward) if t.needs_grad(factor) else out
