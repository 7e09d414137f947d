"""A model's modules handed to what stands around its code: linear layers, parameters, the embedding, head and loss."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.observer import Handle
from vramplan.architecture.observed.surroundings import Surroundings

#: Where the class of a module whose parameters are made anew keeps the one before.
_PLAIN = "_without_adapters"


def wire(model: Any, layers: str, around: Surroundings, handles: Handles) -> None:
    """Hand the modules to `around`: those of the layers that run (the model's list named `layers`), and the others."""
    for module in model.modules():
        module.__dict__.pop("forward", None)  # of an earlier run
        module.__class__ = getattr(type(module), _PLAIN, type(module))
    for number, layer in enumerate(model.get_submodule(layers)):
        if around.runs(number):
            inside = _Wiring(around, handles, number)
            for path, module in layer.named_modules():
                inside.wire(module, path)
    outside = _Wiring(around, handles, None)
    for path, module in model.named_modules():
        if not path.startswith(f"{layers}."):
            outside.wire(module, path)
    outside.wire_ends(model)


class _Wiring:
    """The modules of one layer, or those outside all of them."""

    def __init__(self, around: Surroundings, handles: Handles, layer: int | None) -> None:
        self.around = around
        self.handles = handles
        self.layer = layer

    def wire(self, module: nn.Module, path: str) -> None:
        """Run the module at `path` as `around` knows it, with the parameters that `around` knows."""
        ordinary = type(module).forward in (nn.Linear.forward, Conv1D.forward)
        projection = self.around.projection(self.layer, path, own_code=not ordinary)
        if projection is not None:
            module.forward = partial(self._projected, projection)
        elif names := self.around.adapts(self.layer, path):
            self._adapt(module, path, names)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                handle = self.around.parameter(self.layer, f"{path}.{name}" if path else name)
                if handle is not None:
                    module._parameters[name] = self._parameter(parameter.shape, handle)

    def _projected(self, projection: Callable[[Handle], Handle], x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return self.handles.made(projection(self.handles.of(x)))

    def _parameter(self, shape: torch.Size, handle: Handle) -> nn.Parameter:
        kind = self.handles.kind(handle)
        new = nn.Parameter(torch.empty(shape, dtype=kind, device="meta"), requires_grad=False)
        self.handles.put(new, handle)
        return new

    def _adapt(self, module: nn.Module, path: str, names: tuple[str, ...]) -> None:
        """While the module runs, adapted parameters are made when it first asks for them, and kept until it ends."""
        own, present = type(module), dict[str, Any]()

        def read(name: str, _: nn.Module) -> torch.Tensor:
            value = present[name]
            if not isinstance(value, torch.Tensor):
                value = present[name] = self.handles.made(value())
            return value

        def forward(*args: Any, **kwargs: Any) -> Any:
            present.update(self.around.adapted(self.layer, path))
            try:
                return own.forward(module, *args, **kwargs)
            finally:  # recomputation stops early, by an exception
                present.clear()

        properties = {name: property(partial(read, name)) for name in names}
        module.__class__ = type(own.__name__, (own,), {**properties, _PLAIN: own})
        module.forward = forward

    def wire_ends(self, model: Any) -> None:
        """The embedding's output is shown to `around`, which has the head and the loss."""
        around, handles = self.around, self.handles
        head, table = model.get_output_embeddings(), model.get_input_embeddings()
        embed = type(table).forward

        def embedded(*args: Any, **kwargs: Any) -> torch.Tensor:
            out: torch.Tensor = embed(table, *args, **kwargs)
            around.embedded(handles.of(out))
            return out

        head.forward = lambda x: handles.made(
            around.logits(handles.of(x), handles.optional(getattr(head, "bias", None)))
        )
        table.forward = embedded
        model.loss_function = lambda logits, *_, **__: handles.made(around.loss(handles.of(logits)))
