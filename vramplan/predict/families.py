"""Which layer each family runs, and what stands before the first layer and after the last."""

from vramplan.architecture import Architecture, WeightKind
from vramplan.predict.decoder import STYLES, LayerFunction, layer
from vramplan.predict.layers_classic import falcon, gpt2, gpt_neox, opt, phi
from vramplan.predict.modules import Modules
from vramplan.predict.operations import add, dropout, scale
from vramplan.predict.operations.gradients import own_gradient
from vramplan.predict.operations_mlp import KNOWN_ACTIVATIONS
from vramplan.predict.tape import Tape, Tensor
from vramplan.scenario import Checkpointing, Scenario

#: Families whose layer is not Llama's with switches.
CLASSIC: dict[str, LayerFunction] = {"gpt2": gpt2, "gpt_neox": gpt_neox, "phi": phi, "opt": opt, "falcon": falcon}


def layer_function(architecture: Architecture) -> LayerFunction:
    """The decoder layer of a family; a family that is not known runs Llama's, with a warning."""
    return CLASSIC.get(architecture.family, layer)


def known(architecture: Architecture) -> bool:
    """Whether the family's layer is written down."""
    return architecture.family in STYLES or architecture.family in CLASSIC


def unknown_features(scenario: Scenario) -> tuple[str, ...]:
    """Features of the scenario that the closed form only approximates, each in a few words.

    What a training step of a family outside the table leaves open, its own run says.
    """
    architecture = scenario.architecture
    found = list(assumptions(architecture)) if not scenario.method.trains else []
    if known(architecture):
        names = {part.activation for b in architecture.blocks for part in (b.mlp, b.experts) if part is not None}
        found += [f"activation '{name}'" for name in sorted(names) if name not in KNOWN_ACTIVATIONS]
    return tuple(found)


def assumptions(architecture: Architecture) -> tuple[str, ...]:
    """What is assumed about layers that Llama's stand in for; nothing for a family of the table."""
    if known(architecture):
        return ()
    found = [f"the layer of {architecture.family}, taken for Llama's"]
    if assumed := architecture.facts.get("assumed"):
        found.append(f"facts of the layer that were guessed ({assumed})")
    return tuple(found)


def embed(t: Tape, outside: Modules, scenario: Scenario) -> tuple[Tensor, list[Tensor]]:
    """The first layer's input, and what else the model's forward keeps in its variables while the layers run."""
    table = outside.table(scenario.architecture)
    t.scope = "embedding"
    hidden = lookup(t, table, (scenario.batch, scenario.seq))
    scaled, outside_module = (
        scenario.architecture.facts.get("embedding_scale"),
        scenario.architecture.family == "granite",
    )
    if scaled and not outside_module:  # Gemma scales inside its embedding's module
        hidden = scale(t, hidden, "scaled output")
    trains = scenario.method.trains and scenario.checkpointing is not Checkpointing.OFF
    if trains and hidden.node is None:
        t.require_grad(hidden)  # the hook of `enable_input_require_grads`, on the embedding's own output
    if scaled and outside_module:
        hidden = scale(t, hidden, "scaled output")
    held = [hidden]
    hidden = _positioned(t, outside, scenario, hidden, held)
    if t.training and scenario.architecture.facts.get("embedding_dropout"):
        hidden = dropout(t, hidden)
    t.scope = ""
    return hidden, held


def _positioned(t: Tape, outside: Modules, scenario: Scenario, hidden: Tensor, held: list[Tensor]) -> Tensor:
    """Learned positions added (GPT-2: one row for the whole batch; OPT: one per sequence)."""
    architecture = scenario.architecture
    tables = [w for w in architecture.before if w.kind is WeightKind.EMBEDDING and w != architecture.table]
    if not tables:
        return hidden
    batch = scenario.batch if architecture.family == "opt" else 1
    held.append(lookup(t, outside.tensors[tables[0].path], (batch, scenario.seq)))
    return add(t, hidden, held[-1], "embeddings with positions")


def lookup(t: Tape, table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`nn.Embedding`: rows of the table; a trained table gets a dense gradient of its own size."""
    out = t.new((*shape, table.shape[-1]), table.kind, "output")
    return own_gradient(t, table, out, "table gradient")


def final_norm(t: Tape, outside: Modules, architecture: Architecture, hidden: Tensor) -> Tensor:
    """The norm behind the last layer."""
    style = STYLES.get(architecture.family, STYLES["llama"])
    if not architecture.final_norm:
        return hidden
    path = architecture.final_norm[0].owner
    return outside.norm(t, path, hidden, upcast_weight=style.upcast_weight, shifted=style.shifted)
