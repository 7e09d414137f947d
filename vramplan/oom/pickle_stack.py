"""The stack that a pickle works on: its values, the marks between them, what it remembers, and what all that costs."""

from vramplan.oom.pickle_refusal import HINT, HostilePickle
from vramplan.units import human

#: Bytes in CPython 3.11, with what a few items add.
_SIZES: dict[type, int] = {dict: 232, list: 120, tuple: 64, float: 24, int: 32}
_ITEM = 8
_PAIR = 40  # CPython's dict: entry and index, partly filled
_SCALARS = (str, int, float, bool, type(None))


class _Mark:
    """Where a container's items begin on the stack."""


_MARK = _Mark()


class PickleStack:
    """Values of plain data alone; HostilePickle for whatever a pickler would not do to them.

    `memory` bounds the estimated bytes of all values, `depth` the containers begun inside one another.
    """

    def __init__(self, memory: int, depth: int) -> None:
        self.values: list[object] = []
        self.remembered: list[object] = []
        self._memory = memory
        self._depth = depth
        self._cost = 0
        self._marks = 0

    def charge(self, size: int) -> None:
        """Count memory."""
        self._cost += size
        if self._cost > self._memory:
            raise HostilePickle(f"the pickle unfolds to more than {human(self._memory)}", hint=HINT)

    def push(self, value: object) -> None:
        """A new value."""
        self.charge(_SIZES.get(type(value), 0) + _ITEM)
        self.values.append(value)

    def result(self) -> object:
        """The value that is left when the pickle stops."""
        if len(self.values) != 1 or self._marks:
            raise HostilePickle("the pickle ends with values left over", hint=HINT)
        return self.values[0]

    # -- marks

    def mark(self) -> None:
        """A container's items begin."""
        self._marks += 1
        if self._marks > self._depth:
            raise HostilePickle(f"the pickle is nested deeper than {self._depth}", hint=HINT)
        self.values.append(_MARK)

    def _items(self) -> list[object]:
        """What stands above the last mark, taken off together with it."""
        values = self.values
        i = len(values) - 1
        while values[i] is not _MARK:
            i -= 1
            if i < 0:
                raise HostilePickle("the pickle closes a container that it never began", hint=HINT)
        items = values[i + 1 :]
        del values[i:]
        self._marks -= 1
        return items

    def _pop(self) -> object:
        return _value(self.values.pop())

    # -- what is remembered

    def remember(self) -> None:
        """The top value, under the next number."""
        self.charge(_ITEM)
        self.remembered.append(_value(self.values[-1]))

    def remember_as(self, index: int) -> None:
        """The top value, under a number; pickle numbers in order, so a gap is an attempt at memory."""
        if index == len(self.remembered):
            self.remember()
            return
        value = _value(self.values[-1])
        if index > len(self.remembered):
            raise HostilePickle(f"the pickle remembers a value under the number {index:,}", hint=HINT)
        self.remembered[index] = value

    # -- containers

    def append(self) -> None:
        """The top value goes into the list below it."""
        value = self._pop()
        self._list().append(value)
        self.charge(_ITEM)

    def extend(self) -> None:
        """What stands above the mark goes into the list below it."""
        items = self._items()
        self._list().extend(items)
        self.charge(_ITEM * len(items))

    def _list(self) -> list[object]:
        target = self.values[-1]
        if type(target) is not list:
            raise HostilePickle(f"the pickle appends to a {type(target).__name__}", hint=HINT)
        return target

    def set_item(self) -> None:
        """The top two values, key and value, go into the dictionary below them."""
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def set_items(self) -> None:
        """The keys and values above the mark go into the dictionary below it."""
        self._set(self._items())

    def _set(self, items: list[object]) -> None:
        target = self.values[-1]
        if type(target) is not dict:
            raise HostilePickle(f"the pickle sets an item of a {type(target).__name__}", hint=HINT)
        if len(items) % 2:
            raise HostilePickle("the pickle sets a key without a value", hint=HINT)
        for i in range(0, len(items), 2):
            key = items[i]
            if type(key) is not str and type(key) is not int:
                raise HostilePickle(f"the pickle has a {type(key).__name__} as a key", hint=HINT)
            target[key] = items[i + 1]
        self.charge(_PAIR * (len(items) // 2))

    def tuple_of(self, count: int) -> None:
        """A tuple of the top values."""
        items = [self._pop() for _ in range(count)]
        self._tuple(items[::-1])

    def tuple_to_mark(self) -> None:
        """A tuple of what stands above the mark."""
        self._tuple(self._items())

    def _tuple(self, items: list[object]) -> None:
        """Tuples hold scalars alone, as those of a snapshot do: nested ones can be too deep to be compared."""
        if not all(type(item) in _SCALARS for item in items):
            raise HostilePickle("the pickle has a tuple of containers", hint=HINT)
        self.charge(_ITEM * len(items))
        self.push(tuple(items))


def _value(top: object) -> object:
    if top is _MARK:
        raise HostilePickle("the pickle uses a mark as a value", hint=HINT)
    return top
