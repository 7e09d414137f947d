"""A mode of torch: while it is active, every function that meets a tensor comes here first."""

from contextlib import nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vramplan.architecture.observed import (
    arithmetic,
    attention,
    choices,
    elementwise,
    products,
    reductions,
    values,
    views,
)
from vramplan.architecture.observed.calls import Call, Told, tensors_in
from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.observer import NotObservable
from vramplan.architecture.observed.opaque import opaque

_CONCEPTS = (views, arithmetic, products, elementwise, reductions, choices, attention, values)
FUNCTIONS: dict[str, Told] = {name: told for concept in _CONCEPTS for name, told in concept.FUNCTIONS.items()}
assert len(FUNCTIONS) == sum(len(concept.FUNCTIONS) for concept in _CONCEPTS), "a function of two concepts"

#: More calls in one layer than any decoder of the table makes by far: a loop over every token.
MAX_CALLS = 10_000


class Observed(TorchFunctionMode):
    """Runs torch's functions on the meta device and tells the observer what they hold."""

    def __init__(self, handles: Handles) -> None:
        super().__init__()
        self.handles = handles
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call."""
        if func.__name__ == "__get__":
            with torch._C.DisableTorchFunction():
                return self._attribute(func, args)
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise NotObservable("a loop over every token")
        call = Call(func, args, kwargs or {})
        told = FUNCTIONS.get(call.name, opaque)
        # Only tensors made of nothing have to be told their device; without the mode that does it the rest runs faster.
        with torch._C.DisableTorchFunction() if tensors_in([args, call.kwargs]) else nullcontext():
            if torch.is_grad_enabled():
                return told(self.handles, call)
            with self.handles.observer.unrecorded():
                return told(self.handles, call)

    def _attribute(self, func: Any, args: Any) -> Any:
        """`x.T` and the like."""
        x, out, handles = args[0], func(*args), self.handles
        if not isinstance(out, torch.Tensor) or out is x or handles.known(out):
            return out
        if getattr(func, "__self__", None) is torch.Tensor.data:  # the same memory outside the graph
            return handles.give(out, handles.observer.detach(handles.of(x)))
        return handles.give(out, handles.observer.view(handles.of(x), tuple(out.shape)))
