"""The script of a run: allocations and frees as they happen, repeated layers written once, turned into timeline parts."""

from vramplan.ledger import Component, Phase
from vramplan.timeline import Alloc, Enter, Free, Part, Repeat


class Group:
    """Layers that are alike: run once, happening `times` times."""

    __slots__ = ("times",)

    def __init__(self, times: int) -> None:
        self.times = times


class _Block:
    __slots__ = ("alive", "component", "group", "kind", "label", "scope", "shape", "size")

    def __init__(
        self, size: int, scope: str, label: str, shape: tuple[int, ...], kind: str, group: Group | None,
        component: Component | None,
    ) -> None:
        self.size = size
        self.scope = scope
        self.label = label
        self.shape = shape
        self.kind = kind
        self.group = group
        self.component = component
        self.alive = True


_Item = int | Phase | tuple[Group, bool, "list[_Item]"]


class Script:
    """Writes allocations (block number) and frees (its complement) into the current list: the run's own, or a round's."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._items: list[_Item] = []
        self._outer: list[_Item] = self._items
        self._group: Group | None = None
        self._vocab = 0

    def logits_width(self, vocab: int) -> None:
        """From now on a tensor whose last dimension is `vocab` belongs to the logits."""
        self._vocab = vocab

    def alloc(self, size: int, scope: str, label: str, shape: tuple[int, ...], kind: str) -> int:
        """A new block of `size` bytes."""
        component = Component.LOGITS if self._vocab and shape and shape[-1] == self._vocab else None
        self._blocks.append(_Block(size, scope, label, shape, kind, self._group, component))
        block = len(self._blocks) - 1
        self._items.append(block)
        return block

    def name(self, block: int, component: Component) -> None:
        """Say what a block is for; without a name its lifetime decides."""
        self._blocks[block].component = component

    def free(self, block: int) -> None:
        """Give a block back, wherever the run is: outside its own round, every round's instance goes."""
        info = self._blocks[block]
        if not info.alive:
            return
        info.alive = False
        if info.group is self._group:
            self._items.append(~block)
            return
        assert info.group is not None, f"a round frees what it does not own: {info.scope} {info.label}"
        assert self._group is None, f"one round frees what another made: {info.scope} {info.label}"
        self._items.append((info.group, False, [~block]))

    release = free

    def enter(self, phase: Phase) -> None:
        """From here on the high-water mark belongs to `phase`."""
        self._items.append(phase)

    def open(self, group: Group, *, reverse: bool = False) -> None:
        """What follows happens in every round of `group`."""
        body: list[_Item] = []
        self._outer.append((group, reverse, body))
        self._items = body
        self._group = group

    def close(self) -> None:
        """The round is over."""
        self._items = self._outer
        self._group = None

    def take_over(self, block: int) -> int:
        """The same memory under a number that belongs to the current round."""
        self._blocks[block].alive = False
        self._outer.insert(-1, ~block)
        return self.copy(block)

    def copy(self, block: int) -> int:
        """A block like another one."""
        info = self._blocks[block]
        self._blocks.append(
            _Block(info.size, info.scope, info.label, info.shape, info.kind, self._group, info.component)
        )
        self._items.append(len(self._blocks) - 1)
        return len(self._blocks) - 1

    def keep_for_backward(self) -> None:
        """Backward begins: what is alive without a name has been kept for it."""
        for block in self._blocks:
            if block.alive and block.component is None:
                block.component = Component.ACTIVATIONS

    def parts(self) -> tuple[Part, ...]:
        """The timeline's parts."""
        labels: dict[tuple[str, str, str, tuple[int, ...]], str] = {}
        return self._parts(self._outer, labels)

    def _parts(self, items: list[_Item], labels: dict[tuple[str, str, str, tuple[int, ...]], str]) -> tuple[Part, ...]:
        parts: list[Part] = []
        for item in items:
            if type(item) is int:
                parts.append(self._alloc(item, labels) if item >= 0 else Free(~item))
            elif type(item) is tuple:
                group, reverse, body = item
                parts.append(Repeat(self._parts(body, labels), group.times, reverse))
            else:
                parts.append(Enter(item))  # type: ignore[arg-type]
        return tuple(parts)

    def _alloc(self, number: int, labels: dict[tuple[str, str, str, tuple[int, ...]], str]) -> Alloc:
        block = self._blocks[number]
        key = (block.scope, block.label, block.kind, block.shape)
        label = labels.get(key)
        if label is None:
            name = f"{block.scope} {block.label}".strip()
            label = labels[key] = f"{name} {block.kind} {list(block.shape)}"
        return Alloc(number, block.size, block.component or Component.WORKSPACE, label)
