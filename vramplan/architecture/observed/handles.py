"""Meta tensors and what the observer calls them."""

from typing import Any

import torch

from vramplan.architecture.observed.observer import Handle, Observer, Spec
from vramplan.element_types import type_name

#: Under which attribute a meta tensor carries the observer's handle; both die together.
_HANDLE = "_observed"
_KINDS = {torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool}


def named_kind(x: torch.Tensor) -> bool:
    """Whether its element type has a name among the observer's; complex numbers have none."""
    return x.dtype in _KINDS


def spec(x: torch.Tensor) -> Spec:
    """Shape and element type; what has no name among the observer's types as elements of the same size in all."""
    shape = tuple(x.shape)
    if named_kind(x):
        return shape, type_name(x.dtype)
    return (*shape, max(1, x.dtype.itemsize // 4)), "float32"


class Handles:
    """Which handle stands for which meta tensor."""

    def __init__(self, observer: Observer, *, padded: bool) -> None:
        self.observer = observer
        self.padded = padded
        """Whether samples of the batch are padded."""

    def lets_all_through(self, x: torch.Tensor) -> bool:
        """Whether everything that is asked of all of `x` holds: not of a padded batch's mask, a row for each sample."""
        return not (self.padded and x.ndim == 2)

    @staticmethod
    def known(x: torch.Tensor) -> bool:
        """Whether the observer has been told of the tensor."""
        return getattr(x, _HANDLE, None) is not None

    def of(self, x: Any) -> Handle:
        """The handle of a tensor; what nobody made here is a constant of the model."""
        if not self.known(x):
            self.put(x, self.observer.constant(*spec(x)))
        return getattr(x, _HANDLE)

    def optional(self, x: Any) -> Handle | None:
        """The same for what may be left out."""
        return None if x is None else self.of(x)

    @staticmethod
    def put(x: torch.Tensor, handle: Handle) -> torch.Tensor:
        """`x` with its handle."""
        setattr(x, _HANDLE, handle)
        return x

    def give(self, x: torch.Tensor, handle: Handle) -> torch.Tensor:
        """`x` with its handle, and in the element type that the observer says it has."""
        kind = self.kind(handle)
        if named_kind(x) and x.dtype is not kind:
            x = torch.empty_strided(x.shape, x.stride(), dtype=kind, device="meta")
        return self.put(x, handle)

    def change(self, x: torch.Tensor, changed: Handle) -> torch.Tensor:
        """`x`, changed in place: where it is a view, what it is a view of has changed too."""
        base = x._base
        if base is None or not self.observer.tracked(changed):
            return self.put(x, changed)
        whole = self.observer.changed_within(self.of(base), changed)
        self.put(base, whole)
        return self.put(x, self.observer.part(whole, tuple(x.shape)))

    def made(self, handle: Handle) -> torch.Tensor:
        """A new meta tensor for a handle, of which the observer is not told: it knows the handle."""
        with torch._C.DisableTorchFunction():
            made = torch.empty(self.observer.shape(handle), dtype=self.kind(handle), device="meta")
        return self.put(made, handle)

    def kind(self, handle: Handle) -> torch.dtype:
        """The element type that the observer says it has."""
        kind: torch.dtype = getattr(torch, self.observer.kind(handle))
        return kind

    def constant(self, x: torch.Tensor) -> torch.Tensor:
        """`x` as a new tensor that needs no gradient."""
        return self.give(x, self.observer.constant_made(*spec(x)))

    def low(self, x: Any) -> Any:
        """A floating tensor in autocast's type, on the meta device alone."""
        name = self.observer.autocast()
        if name and isinstance(x, torch.Tensor) and x.is_floating_point():
            return x.detach().to(getattr(torch, name))
        return x

    def raised(self, x: torch.Tensor) -> torch.Tensor:
        """A floating tensor as CUDA's autocast hands it to an operation that it runs in fp32."""
        if x.is_floating_point():
            handle = self.observer.raised(self.of(x))
            if handle is not self.of(x):
                return self.give(x.detach().to(torch.float32), handle)
        return x
