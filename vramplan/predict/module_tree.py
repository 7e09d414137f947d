"""A model's modules with the bytes that transformers counts for them before it loads: a tree made of weights' paths."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from vramplan.architecture import HEAD, Architecture, Weight, WeightKind
from vramplan.predict.base import loaded_element
from vramplan.predict.quantization import COUNTED_ELEMENT, is_quantized
from vramplan.scenario import Scenario


@dataclass(eq=False)
class Node:
    """A module, or a parameter that belongs to one."""

    path: str
    is_module: bool = True
    is_layer: bool = False
    """Whether its class is among the model's `_no_split_modules`: a decoder layer."""
    own: int = 0
    """Bytes of its own parameters and buffers."""
    parameters: "list[Node]" = field(default_factory=list)
    modules: "list[Node]" = field(default_factory=list)

    @cached_property
    def size(self) -> int:
        """Bytes of everything in it; read once the tree is complete."""
        return self.own + sum(module.size for module in self.modules)

    @property
    def indivisible(self) -> bool:
        """Whether it is placed as one: a decoder layer, or what has no modules inside."""
        return self.is_layer or not self.modules

    @property
    def parts(self) -> "list[Node]":
        """What it is split into: its own parameters, then the modules in it; its own buffers are not placed."""
        return [*self.parameters, *self.modules]


def module_tree(scenario: Scenario) -> Node:
    """The root of the scenario's model, its weights counted as `compute_module_sizes` does (transformers 5.17).

    A quantised weight counts 4 or 8 bits, its constants nothing; everything else counts its loaded dtype; a tied head
    counts nothing.
    """
    architecture, root = scenario.architecture, Node("")
    for weight in _in_order(architecture):
        size = _counted(weight, scenario)
        node = _module(root, weight.owner, architecture)
        node.own += size
        if weight.kind is not WeightKind.BUFFER:
            node.parameters.append(Node(weight.path, is_module=False, own=size))
    if architecture.tied:
        _module(root, HEAD, architecture)
    return root


def _in_order(architecture: Architecture) -> Iterator[Weight]:
    """Parameters in the model's order, buffers behind the trunk and before the head."""
    trunk = architecture.layer_prefix.partition(".")[0]
    weights = tuple(architecture.parameters())
    end = max(i for i, weight in enumerate(weights) if weight.path.startswith(f"{trunk}."))
    yield from weights[: end + 1]
    yield from architecture.buffers
    yield from weights[end + 1 :]


def _counted(weight: Weight, scenario: Scenario) -> int:
    if is_quantized(weight, scenario.quant):
        return int(weight.numel * COUNTED_ELEMENT[scenario.quant.type])
    return weight.numel * loaded_element(weight, scenario)


def _module(root: Node, path: str, architecture: Architecture) -> Node:
    """The module at `path`, made with those above it when it is not there yet."""
    node = root
    for part in _prefixes(path.split(".")):
        found = next((m for m in node.modules[::-1] if m.path == part), None)
        if found is None:
            found = Node(part, is_layer=_is_layer(part, architecture))
            node.modules.append(found)
        node = found
    return node


def _prefixes(names: Iterable[str]) -> Iterator[str]:
    path = ""
    for name in names:
        path = f"{path}.{name}" if path else name
        yield path


def _is_layer(path: str, architecture: Architecture) -> bool:
    prefix, _, number = path.rpartition(".")
    return prefix == architecture.layer_prefix and number.isdecimal()
