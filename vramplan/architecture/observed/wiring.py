"""A model's modules handed to what stands around its code: linear layers, parameters, the embedding, head and loss."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.observer import Handle
from vramplan.architecture.observed.surroundings import Surroundings

#: Where the class of a module whose parameters are made anew keeps the one before.
_PLAIN = "_without_adapters"


class Place(NamedTuple):
    """A module whose code runs."""

    layer: int | None
    """The number of the decoder layer that it is in; None outside all of them."""
    path: str
    """Its path in that layer, or in the model."""
    module: nn.Module


def running(model: nn.Module, layers: str, around: Surroundings) -> tuple[Place, ...]:
    """The modules of the layers that run (the model's list named `layers`), and those outside the layers."""
    inside = [
        Place(number, path, module)
        for number, layer in enumerate(model.get_submodule(layers).children())
        if around.runs(number)
        for path, module in layer.named_modules()
    ]
    within = f"{layers}."
    outside = (Place(None, path, module) for path, module in model.named_modules() if not path.startswith(within))
    return *inside, *outside


@contextmanager
def wired(model: Any, places: Sequence[Place], around: Surroundings, handles: Handles) -> Iterator[None]:
    """While it lasts, the modules at these places, and the model's two ends, are handed to `around`."""
    wiring = _Wiring(around, handles)
    try:
        for place in places:
            wiring.wire(place)
        wiring.wire_ends(model)
        yield
    finally:  # another one, of other adapters say, runs the same modules
        for _, _, module in places:
            module.__dict__.pop("forward", None)
            module.__class__ = getattr(type(module), _PLAIN, type(module))


class _Wiring:
    """Modules run as `around` knows them."""

    def __init__(self, around: Surroundings, handles: Handles) -> None:
        self.around = around
        self.handles = handles

    def wire(self, place: Place) -> None:
        """Run the module as `around` knows it, with the parameters that `around` knows."""
        layer, path, module = place
        ordinary = type(module).forward in (nn.Linear.forward, Conv1D.forward)
        projection = self.around.projection(layer, path, own_code=not ordinary)
        if projection is not None:
            module.forward = partial(self._projected, projection)
        elif names := self.around.adapts(layer, path):
            self._adapt(place, names)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                handle = self.around.parameter(layer, f"{path}.{name}" if path else name)
                if handle is not None:
                    module._parameters[name] = self._parameter(parameter.shape, handle)

    def _projected(self, projection: Callable[[Handle], Handle], x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return self.handles.made(projection(self.handles.of(x)))

    def _parameter(self, shape: torch.Size, handle: Handle) -> nn.Parameter:
        kind = self.handles.kind(handle)
        new = nn.Parameter(torch.empty(shape, dtype=kind, device="meta"), requires_grad=False)
        self.handles.put(new, handle)
        return new

    def _adapt(self, place: Place, names: tuple[str, ...]) -> None:
        """While the module runs, adapted parameters are made when it first asks for them, and kept until it ends."""
        layer, path, module = place
        own, present = type(module), dict[str, Any]()

        def read(name: str, _: nn.Module) -> torch.Tensor:
            value = present[name]
            if not isinstance(value, torch.Tensor):
                value = present[name] = self.handles.made(value())
            return value

        def forward(*args: Any, **kwargs: Any) -> Any:
            present.update(self.around.adapted(layer, path))
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
