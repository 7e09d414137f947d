"""Where `device_map="auto"` puts each module of a model on a machine with one GPU, worked out from shapes alone.

transformers 5.17 integrations/accelerate.py: `get_max_memory`, `get_balanced_memory`, `infer_auto_device_map` (its own
since version 5, accelerate 1.15 only tells the free memory), then the quantiser's `adjust_max_memory`. With
`device_map={"": 0}`, or none, nothing of this happens: the whole model goes to the GPU.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from vramplan.architecture import HEAD
from vramplan.predict.module_tree import Node, module_tree
from vramplan.scenario import QuantType, Scenario

#: get_balanced_memory: "90% is a good compromise" of the only GPU's free memory; get_max_memory: of the host's too.
SHARE = 0.90
#: quantizer_bnb_{4,8}bit.py adjust_max_memory: "need more space for buffers that are created during quantization".
QUANTIZER_SHARE = 0.90


class Place(StrEnum):
    """Where a module is put."""

    GPU = "gpu"
    CPU = "cpu"
    DISK = "disk"


_ORDER = (Place.GPU, Place.CPU, Place.DISK)


@dataclass(frozen=True)
class DeviceMap:
    """Every module that is placed as one, and what was counted on."""

    free: int
    """Bytes that are free on the card when the model is loaded."""
    limit: int
    """Bytes of them that may be used: 90 %, of a quantised model 90 % of those again."""
    kept_free: int
    """Bytes kept empty within the limit when the card was left: the largest indivisible module among those that did not
    go on it; 0 when all did."""
    places: Mapping[str, Place]
    """Path of each module (or bare parameter) that was placed as one -> where."""
    sizes: Mapping[str, int]
    """Path -> its bytes as transformers counts them: packed weights without their constants."""

    @property
    def whole(self) -> bool:
        """Whether everything is on the card."""
        return all(place is Place.GPU for place in self.places.values())

    @cached_property
    def bytes(self) -> Mapping[Place, int]:
        """Bytes in each place, as transformers counts them."""
        return {p: sum(self.sizes[path] for path, place in self.places.items() if place is p) for p in _ORDER}

    def at(self, place: Place) -> tuple[str, ...]:
        """Paths of the modules in that place, in the model's order."""
        return tuple(path for path, where in self.places.items() if where is place)


def auto_device_map(scenario: Scenario, *, free: int, host: int | None = None) -> DeviceMap:
    """What `from_pretrained(..., device_map="auto")` makes of the scenario's model.

    `free`: bytes free on the card as the driver tells them once the context exists. `host`: bytes of main memory that
    are available; None for more than the model needs, so that nothing goes to the disk.
    """
    share = SHARE * (1.0 if scenario.quant.type is QuantType.NONE else QUANTIZER_SHARE)
    limits = {Place.GPU: free * share, Place.CPU: float("inf") if host is None else host * share}
    root = module_tree(scenario)
    filling = _Filling(root, limits, tied_group(scenario))
    filling.run()
    return DeviceMap(free, int(limits[Place.GPU]), filling.kept_on_gpu, filling.places, filling.sizes)


def tied_group(scenario: Scenario) -> tuple[str, ...]:
    """The parameters that share one tensor (`all_tied_weights_keys`): head and input embedding; empty when untied."""
    architecture = scenario.architecture
    return (f"{HEAD}.weight", architecture.table.path) if architecture.tied else ()


class _Filling:
    """The loop of `infer_auto_device_map`: modules in the model's order onto the devices in their order.

    A device that cannot take the next module is left for good. On GPU and CPU alike as much stays free as the largest
    indivisible module among those to come needs, so that an offloaded one can be brought in.
    """

    def __init__(self, root: Node, limits: Mapping[Place, float], tied: Sequence[str]) -> None:
        self._todo = list(root.modules)
        self._limits, self._tied = limits, tied
        self._device = 0
        self._used = dict.fromkeys(_ORDER, 0)
        self._largest, self._largest_names = _largest_layer(self._todo)
        self.kept_on_gpu = 0
        self.places: dict[str, Place] = {}
        self.sizes: dict[str, int] = {}

    def run(self) -> None:
        """Place every module."""
        while self._todo:
            node = self._todo.pop(0)
            self._forget(node)
            companions = self._companions(node)
            size = node.size + sum(c.size for c in companions)
            place = _ORDER[self._device]
            if place is Place.DISK or self._used[place] + size <= self._limits[place] - self._largest:
                self._put(node, companions, place)
            elif node.indivisible:
                if place is Place.GPU:
                    self.kept_on_gpu = self._largest
                self._device += 1  # the real loop also counts the reserve as used, of a device that is left for good
                self._todo.insert(0, node)
            else:
                self._todo[:0] = node.parts
                self._largest, self._largest_names = _largest_layer(self._todo)

    def _forget(self, node: Node) -> None:
        """The largest module to come may be this one: then look for the largest of the rest."""
        gone = (node.path, f"{node.path}.")
        self._largest_names = [n for n in self._largest_names if n != gone[0] and not n.startswith(gone[1])]
        if not self._largest_names:
            self._largest, self._largest_names = _largest_layer(self._todo)

    def _companions(self, node: Node) -> list[Node]:
        """The waiting modules that hold a tensor tied to one of `node`: they go where it goes.

        A companion that could be split never is: the only tied module outside the trunk is the head, which has no
        modules inside.
        """
        inside = [f"{node.path}." in f"{path}." for path in self._tied]
        if not any(inside) or all(inside):
            return []
        outside = [path for path, within in zip(self._tied, inside, strict=True) if not within]
        found = (next(n for n in self._todo if path.startswith(f"{n.path}.")) for path in outside)
        return list({n.path: n for n in found}.values())

    def _put(self, node: Node, companions: Sequence[Node], place: Place) -> None:
        for one in (node, *companions):
            self._used[place] += one.size
            self.places[one.path] = place
            self.sizes[one.path] = one.size
            if one in self._todo:
                self._todo.remove(one)


def _largest_layer(nodes: Sequence[Node]) -> tuple[int, list[str]]:
    """accelerate's `get_max_layer_size`: the most bytes of a module that cannot be split, and all that have as many."""
    largest, names = 0, []
    for node in _layers(nodes):
        if node.size > largest:
            largest, names = node.size, [node.path]
        elif node.size == largest:
            names.append(node.path)
    return largest, names


def _layers(nodes: Sequence[Node]) -> Iterator[Node]:
    for node in nodes:
        if not node.is_module:
            continue
        if node.indivisible:
            yield node
        else:
            yield from _layers(node.modules)
