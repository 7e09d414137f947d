"""Where in the model the running operation belongs: module path, autograd node, decoder layer."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils.hooks import RemovableHandle

from vramplan.measure.attribution import Place

_LAYER = re.compile(r"\.(\d+)(?:\.|$)")


def layer_in(path: str) -> int | None:
    """The decoder layer in a module's path: 3 in `model.layers.3.mlp`."""
    found = _LAYER.search(path)
    return int(found.group(1)) if found else None


class Places:
    """Follows module calls through global hooks, and remembers which module made each autograd node."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._stack: list[str] = []
        self._made_by: dict[int, str] = {}
        self._cache: dict[tuple[str, str], Place] = {}
        self._handles: list[RemovableHandle] = []
        self._ran_last = ""
        self._depth = 0

    def open(self) -> None:
        """Start to follow module calls; may nest."""
        self._depth += 1
        if self._depth == 1:
            self._handles = [
                hooks.register_module_forward_pre_hook(self._entered),
                hooks.register_module_forward_hook(self._left, always_call=True),
            ]

    def close(self) -> None:
        """Stop to follow, when the outermost `open` is closed."""
        self._depth -= 1
        if self._depth == 0:
            for handle in self._handles:
                handle.remove()

    def note(self) -> None:
        """Remember which module the autograd node of the running operation belongs to.

        The node is made right before the operation is dispatched, so its sequence number is the latest one.
        """
        if self._stack:
            self._made_by[torch._C._autograd._get_sequence_nr() - 1] = self._stack[-1]
            return
        node = torch._C._current_autograd_node()
        if node is not None:
            self._ran_last = self._made_by.get(node._sequence_nr(), "")

    def _entered(self, module: nn.Module, args: Any) -> None:
        if not self._stack and id(module) not in self._names:
            for path, part in module.named_modules():
                self._names.setdefault(id(part), path)
        path = self._names.get(id(module), "")
        if not self._stack:
            node = torch._C._current_autograd_node()
            if node is not None:  # reentrant checkpointing runs the layer inside its own node
                self._made_by[node._sequence_nr()] = path
        self._stack.append(path)

    def _left(self, module: nn.Module, args: Any, out: Any) -> None:
        self._stack.pop()

    def here(self, args: tuple[Any, ...] | None, index: int, layer_of: Callable[[Tensor], int | None]) -> Place:
        """The place of the operation that is running; outside every module, the layer is that of its first input.

        Of an operation over lists of tensors (`_foreach_*`), the layer of output `index` is that of input `index`.
        """
        node = torch._C._current_autograd_node()
        made_by = "" if node is None else self._made_by.get(node._sequence_nr(), "")
        module = self._stack[-1] if self._stack else made_by
        name = "" if node is None else node.name()
        place = self._place(module, name)
        if not module and args:
            layer = _first_layer(args, index, layer_of)
            return Place(module, name, layer) if layer is not None else place
        return place

    def layer(self) -> int | None:
        """The decoder layer whose code is running; between two nodes of a backward, that of the node that ran last."""
        if self._stack:
            return self._place(self._stack[-1], "").layer
        if torch._C._current_graph_task_id() == -1:
            return None
        node = torch._C._current_autograd_node()
        made_by = self._ran_last if node is None else self._made_by.get(node._sequence_nr(), "")
        return self._place(made_by, "").layer

    def _place(self, module: str, node: str) -> Place:
        place = self._cache.get((module, node))
        if place is None:
            place = self._cache[module, node] = Place(module, node, layer_in(module))
        return place

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """Inside, what runs belongs to the module at `path`, though it is not being called."""
        self._stack.append(path)
        try:
            yield
        finally:
            self._stack.pop()

    def node(self) -> int | None:
        """The number of the autograd node that is running; None outside backward."""
        node = torch._C._current_autograd_node()
        return None if node is None else int(node._sequence_nr())


def _first_layer(args: tuple[Any, ...], index: int, layer_of: Callable[[Tensor], int | None]) -> int | None:
    for arg in args:
        if isinstance(arg, (list, tuple)) and index < len(arg):
            arg = arg[index]
        if isinstance(arg, Tensor):
            return layer_of(arg)
    return None
