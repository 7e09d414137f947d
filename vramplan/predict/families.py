"""Which layer each family runs, and the norm that stands after the last."""

from collections.abc import Mapping

from vramplan.architecture import Architecture
from vramplan.predict.activations import KNOWN_ACTIVATIONS
from vramplan.predict.decoder import STYLES, LayerFunction, Style, layer
from vramplan.predict.layers_classic import falcon, gpt2, gpt_neox, opt, phi
from vramplan.predict.modules import Modules
from vramplan.predict.tape import FLOAT32, Kind, Tape, Tensor
from vramplan.scenario import Scenario

#: Families whose layer is not Llama's with switches.
CLASSIC: Mapping[str, LayerFunction] = {"gpt2": gpt2, "gpt_neox": gpt_neox, "phi": phi, "opt": opt, "falcon": falcon}


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
    if assumed := architecture.facts.assumed:
        found.append(f"facts of the layer that were guessed ({', '.join(assumed)})")
    return tuple(found)


def _style(architecture: Architecture) -> Style:
    """How the family's layer differs from Llama's, which stands in for one that is not known."""
    return STYLES.get(architecture.family, STYLES["llama"])


def table_kind(architecture: Architecture, hidden: Kind) -> Kind:
    """The element type of the rotary tables, given the hidden states'."""
    return FLOAT32 if _style(architecture).wide_rotation else hidden


def final_norm(t: Tape, outside: Modules, architecture: Architecture, hidden: Tensor) -> Tensor:
    """The norm behind the last layer."""
    style = _style(architecture)
    if not architecture.final_norm:
        return hidden
    path = architecture.final_norm[0].owner
    return outside.norm(t, path, hidden, upcast_weight=style.upcast_weight, shifted=style.shifted)
