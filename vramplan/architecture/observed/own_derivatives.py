"""Functions with a derivative of their own: `torch.autograd.Function`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.observer import Handle, NotObservable


def observed_functions(
    handles: Handles, observing: Callable[[], AbstractContextManager[None]]
) -> AbstractContextManager[Any]:
    """While it lasts, such functions run here: their backward when it is due, which is `observing` anew."""

    def apply(function: Any, *args: Any) -> torch.Tensor:
        return _apply(function, args, handles, observing)

    return mock.patch.object(torch.autograd.Function, "apply", classmethod(apply))


def _apply(
    function: Any, args: tuple[Any, ...], handles: Handles, observing: Callable[[], AbstractContextManager[None]]
) -> torch.Tensor:
    """`apply`: forward outside the graph; what `function.backward` returns are the gradients."""
    saved = list[torch.Tensor]()
    context = SimpleNamespace(save_for_backward=lambda *tensors: saved.extend(tensors))
    with handles.observer.unrecorded():
        out = function.forward(context, *args)
    if not isinstance(out, torch.Tensor):
        raise NotObservable(f"{function.__name__}, whose derivative has several results")
    tensors = [i for i, x in enumerate(args) if isinstance(x, torch.Tensor)]

    def backward(kept: Sequence[Handle], grad: Handle) -> list[Handle | None]:
        with observing():
            context.saved_tensors = tuple(map(handles.made, kept))
            grads = function.backward(context, handles.made(grad))
            del context.saved_tensors
        grads = grads if isinstance(grads, tuple) else (grads,)
        return [handles.optional(grads[i]) for i in tensors]

    told = [handles.of(x) for x in saved]
    saved.clear()
    made = handles.observer.custom(handles.of(out), [handles.of(args[i]) for i in tensors], told, backward)
    return handles.put(out, made)
