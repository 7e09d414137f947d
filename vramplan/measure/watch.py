"""Watching code that is not ours: whatever runs inside, with the models and optimizers that Python knows of.

Nobody marks phases or names tensors here, so both are told from what runs: what autograd's engine runs is `backward`,
what an optimizer runs, and what runs after a backward without gradients (clipping), is `step`, everything else
`forward`; parameters are found in the modules that are alive, optimizer states in the optimizers.
"""

import gc
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from vramplan.element_types import type_name
from vramplan.errors import CannotRun
from vramplan.ledger import Basis, Component, Ledger, Phase
from vramplan.measure.attribution import Block
from vramplan.measure.cuda import Allocator, CudaAllocator
from vramplan.measure.tracker import Opener, Tracker
from vramplan.measure.usage import Usage
from vramplan.training.meter import Meter
from vramplan.training.names import (
    belongs_to_adapter,
    causal_model,
    name_adapters,
    name_base,
    name_gradients,
    name_optimizer,
    quant_state_tensors,
)


class CpuWatch(Tracker):  # type: ignore[no-untyped-call]
    """`with CpuWatch() as watch:` around any code, then `watch.usage()`: every storage is counted, none is sampled.

    What was alive before is found by Python's garbage collector; tensors that only C++ holds are not among it.
    """

    def __init__(self) -> None:
        super().__init__(vocab=None, device="cpu", openers=_openers())
        self._held_before = 0
        self._models: list[nn.Module] = []
        self._stepping = False
        self._hooks: tuple[RemovableHandle, ...] = ()

    def _optimizer_begins(self, optimizer: Optimizer, *_: object) -> None:
        """Gradients of a model that was made inside the block, beside one that was there, have no name yet."""
        self._stepping = True
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            block = None if parameter.grad is None else self._known(parameter.grad)
            if block is not None and block.component is None:
                self.name(parameter.grad, Component.GRADIENTS, f"gradient {list(parameter.shape)}")

    def _optimizer_ended(self, optimizer: Optimizer, *_: object) -> None:
        """Its states are named while it is there: it may be gone when the block ends."""
        self._stepping = False
        name_optimizer(optimizer, self)

    def __enter__(self) -> Self:
        if self._depth == 0:
            gc.collect()  # what is dead already is not held
            self.enter(Phase.LOAD)
            found = Found()
            self._models = found.models
            self.vocab = next(filter(None, map(_vocabulary, found.models)), None)
            found.name(self)
            self._held_before = sum(block.bytes for block in self.live())
            self.enter(Phase.FORWARD)
            self._hooks = (
                register_optimizer_step_pre_hook(self._optimizer_begins),
                register_optimizer_step_post_hook(self._optimizer_ended),
            )
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._depth == 0:
            for hook in self._hooks:
                hook.remove()
            gc.collect()
            Found().name(self, others=False)

    def _born(self, size: int, tensor: Tensor, func: Any, args: tuple[Any, ...] | None, index: int) -> Block:
        if not isinstance(func, str):  # only what takes memory begins a phase: reading the loss after backward does not
            self._follow()
        return super()._born(size, tensor, func, args, index)

    def _follow(self) -> None:
        """Enter the phase that the running operation belongs to, if it is another one."""
        if torch._C._current_graph_task_id() != -1:
            phase = Phase.BACKWARD
        elif self._stepping or not (torch.is_grad_enabled() or self._phase is Phase.FORWARD):
            phase = Phase.STEP
        else:
            phase = Phase.FORWARD
        if phase is self._phase:
            return
        if Phase.BACKWARD in (phase, self._phase) and not self._models:  # made inside the block
            self._models = Found().models
            for model in self._models:
                name_model(model, self)
        if self._phase is Phase.BACKWARD:
            for model in self._models:
                name_gradients(model, self)
        self.enter(phase)

    def usage(self) -> Usage:
        """What was seen; after the block has ended."""
        timeline = self.timeline()
        ledger = timeline.ledger(dict.fromkeys(Component, Basis.MEASURED))
        peak = ledger.peak if ledger.entries else 0
        return Usage("cpu", self._held_before, peak, ledger.steady, 0, ledger, timeline)


class CudaWatch:
    """`with CudaWatch() as watch:` around any code, then `watch.usage()`: the caching allocator's own counters."""

    def __init__(self, allocator: Allocator | None = None) -> None:
        """CannotRun without a GPU; another `allocator` is asked instead of torch's when it is given."""
        if allocator is None and not torch.cuda.is_available():
            raise CannotRun("there is no CUDA GPU here", hint="watch device='cpu', or run this where there is one")
        self._allocator = allocator or CudaAllocator()
        self._before = 0
        self._usage: Usage | None = None

    def __enter__(self) -> Self:
        gc.collect()
        self._allocator.reset_peaks()
        self._before = self._allocator.counters().allocated
        return self

    def __exit__(self, *args: object) -> None:
        now = self._allocator.counters()
        alive = Tracker(vocab=None, device="cuda")
        alive.enter(Phase.LOAD)
        Found().name(alive)
        nothing = Ledger((), now.allocated)
        self._usage = Usage(
            "cuda", self._before, now.allocated_peak, now.allocated, now.reserved_peak, nothing, alive.timeline()
        )

    def usage(self) -> Usage:
        """What was seen; after the block has ended."""
        assert self._usage is not None, "the block has not ended"
        return self._usage


class Found:
    """The models, optimizers and tensors that are alive, as Python's garbage collector knows them."""

    def __init__(self) -> None:
        everything = gc.get_objects()
        # by type: isinstance would ask lazy modules and proxies for their class, which imports what they stand for
        modules = [thing for thing in everything if issubclass(type(thing), nn.Module)]
        parts = {id(part) for module in modules for part in _parts(module)}
        whole = (module for module in modules if id(module) not in parts and "_modules" in module.__dict__)
        # one that lives on fake or meta tensors, a trace's or accelerate's, holds nothing
        self.models = [model for model in whole if all(map(_has_bytes, model.parameters()))]
        self.optimizers = [thing for thing in everything if issubclass(type(thing), Optimizer)]
        self.tensors = [thing for thing in everything if issubclass(type(thing), Tensor) and _has_bytes(thing)]

    def name(self, meter: Meter, *, others: bool = True) -> None:
        """Tell the meter of everything; tensors of no model and no optimizer are `unknown`, unless left out."""
        if others:
            for tensor in self.tensors:
                shape = f"{list(tensor.shape)} {type_name(tensor.dtype)}"
                meter.name(tensor, Component.UNKNOWN, f"{shape}, held before")
        for model in self.models:
            name_model(model, meter)
            name_gradients(model, meter)
        for optimizer in self.optimizers:
            name_optimizer(optimizer, meter)


def name_model(model: Any, meter: Meter) -> None:
    """Name the parameters and buffers of any model; a causal language model's as in every record."""
    base = causal_model(model)
    if hasattr(base, "get_output_embeddings") and hasattr(base, "config"):
        name_base(base, meter)
        name_adapters(model, meter)
        return
    for path, part in model.named_modules():
        for name, parameter in part.named_parameters(prefix=path, recurse=False):
            meter.name(parameter, _component(part, name), name)
            for label, tensor in quant_state_tensors(part, parameter):
                meter.name(tensor, Component.QUANT_STATE, f"{name}.{label}")
        for name, buffer in part.named_buffers(prefix=path, recurse=False):
            meter.name(buffer, Component.UNQUANTIZED, name)


def _component(part: nn.Module, name: str) -> Component:
    if belongs_to_adapter(name):
        return Component.ADAPTERS
    linear = isinstance(part, nn.Linear) and name.endswith("weight")
    return Component.WEIGHTS if linear else Component.UNQUANTIZED


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The direct children; none of a module that was never initialised."""
    children: dict[str, nn.Module | None] = module.__dict__.get("_modules", {})
    yield from filter(None, children.values())


def _has_bytes(tensor: Any) -> bool:
    """Whether the tensor has memory of its own kind: fake and meta tensors have none."""
    if hasattr(tensor, "fake_mode") or tensor.is_meta or tensor.layout is not torch.strided:
        return False
    try:
        tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # a wrapper: its parts are found by themselves
        return False
    return True


def _vocabulary(model: Any) -> int | None:
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    return size if isinstance(size, int) else None


def _openers() -> dict[Any, Opener]:
    """bitsandbytes' CPU kernels run in the open where it is loaded at all."""
    if "bitsandbytes" not in sys.modules:
        return {}
    from vramplan.measure.bnb_kernels import cpu_opener

    return {"bitsandbytes": cpu_opener()}
