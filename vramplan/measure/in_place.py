"""What autograd does in place while nobody watches, and out of place under a dispatch mode."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vramplan.measure.attribution import Block

aten = torch.ops.aten


class EngineSum(NamedTuple):
    """A sum of two gradients that the autograd engine made out of place because a mode was watching.

    torch/csrc/autograd/input_buffer.cpp (2.13) `can_accumulate_inplace` refuses when `isTensorSubclassLike`, which is
    true under any dispatch mode; unwatched it adds into the older buffer when nobody else holds that. Then, and only
    then, the old buffer dies before the next operation: within a node's own code its inputs are still held. A view
    (what a linear layer of three dimensions hands back) is never added into: its base holds the storage too.
    """

    event: int
    block: Block
    old: Block


#: Derivatives that add into the zeros they have just made, by operation: in which nodes, and what runs unwatched.
INTO_ZEROS: Mapping[Any, tuple[frozenset[str], Any]] = {
    aten.index_put.default: (frozenset({"IndexBackward0"}), aten.index_put_.default),
    aten.scatter.src: (
        frozenset(f"{name}Backward0" for name in ("Max", "Min", "Topk", "Sort", "Kthvalue", "Median", "Mode")),
        aten.scatter_.src,
    ),
}


def into_zeros(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A derivative as it happens unwatched.

    torch/csrc/autograd/FunctionsManual.cpp (2.13) `index_backward`, `value_selecting_reduction_backward`: they make
    another tensor when `areAnyTensorSubclassLike`.
    """
    nodes, in_place = INTO_ZEROS[func]
    node = torch._C._current_autograd_node()
    if node is None or node.name() not in nodes:
        out: Tensor = func(*args, **kwargs)
        return out
    in_place(*args, **kwargs)
    alias: Tensor = aten.alias.default(args[0])
    return alias
