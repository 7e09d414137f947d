"""One call of a function of torch: what it was given, and who tells the observer of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vramplan.architecture.observed.handles import Handles


@dataclass(frozen=True, slots=True)
class Call:
    """A function of torch and its arguments."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """The function's name; an operator has that of its method, `x + y` is `add`."""
        name: str = self.function.__name__
        return name

    @property
    def first(self) -> Any:
        """The first argument, for most functions the tensor."""
        return self.args[0] if self.args else self.kwargs["input"]

    def run(self) -> Any:
        """torch's own answer."""
        return self.function(*self.args, **self.kwargs)

    def run_on(self, x: torch.Tensor) -> Any:
        """torch's own answer with `x` as the first argument, in a tensor of its own."""
        others = {key: value for key, value in self.kwargs.items() if key not in ("input", "inplace")}
        return self.function(x, *self.args[1:], **others)

    def named(self, *names: str) -> dict[str, Any]:
        """The arguments by name, given those that may stand without."""
        return dict(zip(names, self.args, strict=False)) | self.kwargs


Told = Callable[[Handles, Call], Any]


class Functions(dict[str, Told]):
    """Who tells the observer of a call, by the function's name."""

    def add(self, *names: str) -> Callable[[Told], Told]:
        """Marks who tells of the functions of these names."""

        def mark(told: Told) -> Told:
            self.update(dict.fromkeys(names, told))
            return told

        return mark


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Every tensor of arguments or results, lists and mappings opened."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return tensors_in([*value.values()])
    return [x for item in value for x in tensors_in(item)] if isinstance(value, list | tuple) else []


def share_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether one is a view of the other."""
    return bool(a.untyped_storage()._cdata == b.untyped_storage()._cdata)
