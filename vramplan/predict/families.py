"""Which layer each family runs, and what stands before the first layer and after the last."""

from vramplan.architecture import Architecture, WeightKind
from vramplan.predict.decoder import STYLES, LayerFunction, layer
from vramplan.predict.modules import Modules
from vramplan.predict.operations import scale
from vramplan.predict.tape import Gradients, Tape, Tensor
from vramplan.scenario import Scenario


def layer_function(architecture: Architecture) -> LayerFunction:
    """The decoder layer of a family; a family that is not known runs Llama's, with a warning."""
    return layer


def unknown_features(scenario: Scenario) -> tuple[str, ...]:
    """Features of the scenario that the closed form only approximates, each in a few words."""
    found = []
    if scenario.architecture.family not in STYLES:
        found.append(f"the layer of {scenario.architecture.family}")
    return tuple(found)


def embed(t: Tape, outside: Modules, scenario: Scenario) -> Tensor:
    """The embedding's output, scaled where the family does so."""
    table = outside.tensors[scenario.architecture.before[0].path]
    t.scope = "embedding"
    hidden = lookup(t, table, (scenario.batch, scenario.seq))
    if scenario.architecture.facts.get("embedding_scale"):
        hidden = scale(t, hidden, "scaled output")
    t.scope = ""
    return hidden


def lookup(t: Tape, table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`nn.Embedding`: rows of the table; a trained table gets a dense gradient of its own size."""
    out = t.new((*shape, table.shape[-1]), table.kind, "output")
    if not t.needs_grad(table):
        return out
    whole = table.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.new(whole, grad.kind, "table gradient"),)

    return t.record(out, (table,), [], backward)


def final_norm(t: Tape, outside: Modules, architecture: Architecture, hidden: Tensor) -> Tensor:
    """The norm behind the last layer."""
    style = STYLES.get(architecture.family, STYLES["llama"])
    norm = next(w for w in architecture.after if w.kind is WeightKind.NORM)
    path = norm.path.rpartition(".")[0]
    return outside.norm(t, path, hidden, upcast_weight=style.upcast_weight, shifted=style.shifted)

