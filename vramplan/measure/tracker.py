"""The tracker: sees every operation of a run and writes down the birth and death of every storage, with its name.

A `TorchDispatchMode` sees each operation's outputs below autograd. A storage is born when it is first seen and dies
when its weak reference is called back: storages keep their Python identity for as long as C++ holds them (the same
footing as torch.distributed._tools.mem_tracker, torch 2.13). Nothing is sampled, so the result is the run's
`Timeline`.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vramplan.ledger import Component, Phase
from vramplan.measure.attribution import Block, attribute
from vramplan.measure.in_place import INTO_ZEROS, EngineSum, into_zeros
from vramplan.measure.places import Places
from vramplan.timeline import Alloc, EmptyCache, Enter, Event, Free, Timeline

aten = torch.ops.aten


class Death(NamedTuple):
    """A block dies while code of `layer` runs."""

    block: Block
    layer: int | None


class Temporary(NamedTuple):
    """Memory that a kernel takes for itself and gives back before it returns: dispatch cannot see it."""

    bytes: int
    label: str
    until: str = ""
    """Label of the temporary that it makes room for: it is given back once that one is taken. Else at the end."""


#: What a kernel takes inside itself, from its arguments: one rule per operation.
Rule = Callable[[tuple[Any, ...], Mapping[str, Any]], tuple[Temporary, ...]]
#: Runs an operation in another way, under the tracker: a Python kernel whose own operations should be seen.
Opener = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

#: Told of an operation and its arguments, under the tracker, once it ran.
Told = Callable[["Tracker", Any, tuple[Any, ...]], None]


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches a run on one device (a `Meter`): every storage with its size, its birth, its death and what it is for."""

    def __init__(
        self,
        *,
        vocab: int | None,
        device: str = "cpu",
        rules: Mapping[Any, Rule] | None = None,
        openers: Mapping[Any, Opener] | None = None,
        after: Mapping[Any, Told] | None = None,
        scalars_on_host: bool = False,
    ) -> None:
        """`vocab` recognises logits, None none of them; `openers` maps an operation or a namespace of operations to
        what runs it instead; `after` to what is told of it once it ran. `scalars_on_host`: numbers made by
        `torch.tensor(1.0)` are not on the device.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.blocks: list[Block] = []
        self.events: list[Enter | EmptyCache | Block | Death] = []
        self.places = Places()
        self.notes: set[Any] = set()
        self.vocab = vocab
        self._device = device
        self._rules = rules or {}
        self._openers = {**dict.fromkeys(INTO_ZEROS, into_zeros), **(openers or {})}
        self._after = after or {}
        self._scalars_on_host = scalars_on_host
        self._elsewhere = False
        self._phase = Phase.LOAD
        self._depth = 0
        self._live: dict[int, tuple[weakref.ref[torch.UntypedStorage], Block]] = {}
        self._sum: EngineSum | None = None
        self._opened: Any = None

    # The meter's two methods.

    def enter(self, phase: Phase) -> None:
        """From now on the high-water mark belongs to `phase`; at backward, what lives of the forward is being kept."""
        self._sum = None
        self._phase = phase
        self.events.append(Enter(phase))
        if phase is Phase.BACKWARD:
            for _, block in self._live.values():
                block.kept |= block.phase in (Phase.FORWARD, Phase.LOSS)

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        """Say what the tensor's storage is for; the last name wins."""
        for part in _plain_tensors(tensor):
            block = self._block_of(part, "given", None)
            if block is not None:
                block.component, block.name = component, label

    def empty_cache(self) -> None:
        """Note that the run gave its cached segments back to the driver."""
        self.events.append(EmptyCache())

    def claim(self, size: int, label: str) -> None:
        """Note memory that a library takes and never gives back."""
        self._take(size, label).name = label

    @contextmanager
    def elsewhere(self, yes: bool = True) -> Iterator[None]:
        """What is made inside is not in the device's memory: on the host, or managed; with False it is, again."""
        before, self._elsewhere = self._elsewhere, yes
        try:
            yield
        finally:
            self._elsewhere = before

    # What comes out.

    def timeline(self) -> Timeline:
        """Everything that was allocated and freed, in order, each block with its component and a readable label."""
        return Timeline(tuple(self._written()))

    def live(self) -> tuple[Block, ...]:
        """The blocks alive now."""
        return tuple(block for _, block in self._live.values())

    def _written(self) -> Iterator[Event]:
        for event in self.events:
            if isinstance(event, Block):
                yield Alloc(event.number, event.bytes, attribute(event, self.vocab), event.label)
            elif isinstance(event, Death):
                yield Free(event.block.number)
            else:
                yield event

    # Watching.

    def __enter__(self) -> Self:
        self._depth += 1
        self.places.open()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self.places.close()
        self._depth -= 1

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._sum = None
        self.places.note()
        within = func is self._opened  # an opener calls the operation itself
        opener = None if within else self._openers.get(func) or self._openers.get(func.namespace)
        if opener is not None:
            with self._opening(func):
                out = opener(func, args, kwargs)
        else:
            out = func(*args, **kwargs)
        if self._scalars_on_host and func is aten.lift_fresh.default and out.dim() == 0:
            with self.elsewhere():
                self._see(out, func, args)
        else:
            self._see(out, func, args)
        if within:
            return out
        if (tell := self._after.get(func)) is not None:
            tell(self, func, args)
        if (rule := self._rules.get(func)) is not None:  # kernels make their outputs first
            self._pass(rule(args, kwargs))
        return out

    @contextmanager
    def _opening(self, func: Any) -> Iterator[None]:
        before, self._opened = self._opened, func
        try:
            with self:
                yield
        finally:
            self._opened = before

    def _see(self, out: Any, func: Any, args: tuple[Any, ...]) -> None:
        if isinstance(out, Tensor):
            born = len(self.blocks)
            block = self._block_of(out, func, args)
            if func is aten.add.Tensor and block is not None and len(self.blocks) > born:
                self._sum = self._engine_sum(block, args[0])
        elif isinstance(out, (list, tuple)):
            for i, part in enumerate(out):
                if isinstance(part, Tensor):
                    self._block_of(part, func, args, i)

    def _engine_sum(self, total: Block, first: Tensor) -> "EngineSum | None":
        """The sum that just ran, if it may be the engine's own: its first term was made by another node."""
        old = self._known(first)
        if old is None or torch.is_grad_enabled() or torch._C._current_graph_task_id() == -1:
            return None
        if old.node == total.node or old.bytes != total.bytes or first._is_view():
            return None
        return EngineSum(len(self.events) - 1, total, old)

    def _block_of(self, tensor: Tensor, func: Any, args: tuple[Any, ...] | None, index: int = 0) -> Block | None:
        """The block of the tensor's storage, born now if it was never seen; None for what is not on the device."""
        if tensor.device.type != self._device or tensor.layout is not torch.strided:
            return None
        storage = tensor.untyped_storage()
        key = storage._cdata
        found = self._live.get(key)
        if found is not None:
            block = found[1]
            if storage.nbytes() == block.bytes:
                return block
            self._freed(block)  # resized in place: another block holds it now
        block = self._born(storage.nbytes(), tensor, func, args, index)
        self._live[key] = (weakref.ref(storage, partial(self._died, key)), block)
        return block

    def _born(self, size: int, tensor: Tensor, func: Any, args: tuple[Any, ...] | None, index: int) -> Block:
        place = self.places.here(args, index, self._layer_of)
        op = func if isinstance(func, str) else func._schema.name.partition("::")[2]
        node = self.places.node()
        block = Block(len(self.blocks), size, tuple(tensor.shape), tensor.dtype, op, place, self._phase, node)
        self.blocks.append(block)
        if self._elsewhere:
            block.elsewhere = True
        else:
            self.events.append(block)
        return block

    def _pass(self, temporaries: tuple[Temporary, ...]) -> None:
        """Write them as taken and given back."""
        taken: list[tuple[Temporary, Block]] = []
        for temporary in temporaries:
            taken.append((temporary, self._take(temporary.bytes, temporary.label)))
            for done in [pair for pair in taken if pair[0].until == temporary.label]:
                taken.remove(done)
                self._freed(done[1])
        for _, block in taken:
            self._freed(block)

    def _take(self, size: int, label: str) -> Block:
        place = self.places.here(None, 0, self._layer_of)
        block = Block(len(self.blocks), size, (), None, label, place, self._phase)
        self.blocks.append(block)
        self.events.append(block)
        return block

    def _known(self, tensor: Tensor) -> Block | None:
        """The tensor's block, if it has been seen."""
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            return None
        found = self._live.get(tensor.untyped_storage()._cdata)
        return found[1] if found else None

    def _layer_of(self, tensor: Tensor) -> int | None:
        block = self._known(tensor)
        return block.place.layer if block else None

    def _died(self, key: int, _: object) -> None:
        if self._depth == 0:
            return  # the run is over; what dies now dies because nobody watches any more
        _, block = self._live.pop(key)
        if self._sum is not None and self._sum.old is block:
            self._in_place(self._sum)
            return
        self._freed(block)

    def _freed(self, block: Block) -> None:
        if not block.elsewhere:
            self.events.append(Death(block, self.places.layer()))

    def _in_place(self, total: "EngineSum") -> None:
        """Write the engine's sum as what happens unwatched: added into the old buffer, no new block."""
        del self.events[total.event]
        for key, (ref, block) in self._live.items():
            if block is total.block:
                self._live[key] = (ref, total.old)
                break
        self._sum = None


def _plain_tensors(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensor itself; its parts where it is a wrapper without storage of its own."""
    if hasattr(tensor, "__tensor_flatten__") and not hasattr(tensor, "fake_mode"):
        names, _ = tensor.__tensor_flatten__()
        return tuple(part for name in names for part in _plain_tensors(getattr(tensor, name)))
    return (tensor,)
