"""A pickle of plain data, read without executing anything in it.

A pickle is a program for a small stack machine. Python's own unpickler can import modules and call what it finds; a
restricted `find_class` closes that door, but not those of memory (a memo index of 4 billion, a length of 8 EiB) and of
time (a key whose hash walks a tree that is shared a billionfold). This machine knows only the opcodes that make
dictionaries, lists, tuples of scalars, strings, numbers, booleans and None. It has no opcode that imports, calls,
builds an object or asks for a persistent id, so there is nothing to restrict: any other opcode is refused by name.

Opcodes and their arguments: Python's Lib/pickletools.py, protocols 2 to 5.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from vramplan.oom.pickle_refusal import CODES, HINT, HostilePickle, refused
from vramplan.units import GIB, human

Scalar = str | int | float | bool | None
Plain = Scalar | tuple[Scalar, ...] | list["Plain"] | dict[str | int, "Plain"]

#: No number of a snapshot needs more: addresses and sizes have 8 bytes.
_LONGEST_INT = 16
_SCALARS = (str, int, float, bool, type(None))


class Limits(NamedTuple):
    """What a pickle may cost to read. A snapshot of 100,000 events takes some 20 MB in the file and 100 in memory."""

    file: int = GIB
    """Bytes of the pickle."""
    memory: int = 3 * GIB
    """Bytes of the objects made of it, estimated."""
    depth: int = 64
    """Containers begun inside one another; a snapshot has 6."""
    stack: int = 100_000
    """Values not yet put into a container; pickle writes containers in batches of 1,000."""


def read_plain(data: bytes, limits: Limits = Limits()) -> Plain:  # noqa: B008  # immutable
    """The value in a pickle; HostilePickle for anything but plain data, or for a broken one. Executes nothing."""
    if len(data) > limits.file:
        raise HostilePickle(f"the pickle has {human(len(data))}, more than {human(limits.file)}", hint=HINT)
    try:
        return _Machine(data, limits).run()
    except (IndexError, struct.error) as error:
        raise HostilePickle("the pickle is cut off or broken", hint=HINT) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise HostilePickle(f"the pickle is broken: {error}", hint=HINT) from error


class _Mark:
    """Where a container's items begin on the stack."""


_MARK = _Mark()
_SIZES: dict[type, int] = {
    dict: 232,
    list: 120,
    tuple: 64,
    float: 24,
    int: 32,
}  # CPython 3.11, with what a few items add
_ITEM = 8
_PAIR = 40  # CPython's dict: entry and index, partly filled

_u1: Callable[[bytes, int], tuple[int]] = struct.Struct("<B").unpack_from
_u2: Callable[[bytes, int], tuple[int]] = struct.Struct("<H").unpack_from
_u4: Callable[[bytes, int], tuple[int]] = struct.Struct("<I").unpack_from
_i4: Callable[[bytes, int], tuple[int]] = struct.Struct("<i").unpack_from
_u8: Callable[[bytes, int], tuple[int]] = struct.Struct("<Q").unpack_from
_f8: Callable[[bytes, int], tuple[float]] = struct.Struct(">d").unpack_from


class _Machine:
    """Runs one pickle. A handler takes the position behind its opcode and returns the one behind its argument."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._stack: list[object] = []
        self._memo: list[object] = []
        self._cost = 0
        self._marks = 0
        self._handlers = _handlers(self)

    def run(self) -> Plain:
        data, handlers, stack = self._data, self._handlers, self._stack
        at, most = 0, self._limits.stack
        while True:
            opcode = data[at]
            if opcode == 0x2E:  # STOP
                if len(stack) != 1 or self._marks:
                    raise HostilePickle("the pickle ends with values left over", hint=HINT)
                return stack[0]  # type: ignore[return-value]  # handlers push nothing else
            handler = handlers.get(opcode)
            if handler is None:
                raise refused(opcode)
            at = handler(at + 1)
            if len(stack) > most:
                raise HostilePickle(f"the pickle keeps more than {most:,} values waiting", hint=HINT)

    def charge(self, size: int) -> None:
        """Count memory."""
        self._cost += size
        if self._cost > self._limits.memory:
            raise HostilePickle(f"the pickle unfolds to more than {human(self._limits.memory)}", hint=HINT)

    def push(self, value: object) -> None:
        """A new value."""
        self.charge(_SIZES.get(type(value), 0) + _ITEM)
        self._stack.append(value)

    def mark(self, at: int) -> int:
        """MARK."""
        self._marks += 1
        if self._marks > self._limits.depth:
            raise HostilePickle(f"the pickle is nested deeper than {self._limits.depth}", hint=HINT)
        self._stack.append(_MARK)
        return at

    def _items(self) -> list[object]:
        """What stands above the last mark, taken off together with it."""
        stack = self._stack
        i = len(stack) - 1
        while stack[i] is not _MARK:
            i -= 1
            if i < 0:
                raise HostilePickle("the pickle closes a container that it never began", hint=HINT)
        items = stack[i + 1 :]
        del stack[i:]
        self._marks -= 1
        return items

    def _pop(self) -> object:
        value = self._stack.pop()
        if value is _MARK:
            raise HostilePickle("the pickle uses a mark as a value", hint=HINT)
        return value

    def constant(self, value: object) -> Callable[[int], int]:
        """A handler that pushes a value without parts."""

        def handler(at: int) -> int:
            self.push(value)
            return at

        return handler

    def container(self, kind: type) -> Callable[[int], int]:
        """A handler that pushes an empty container."""

        def handler(at: int) -> int:
            self.push(kind())
            return at

        return handler

    def number(self, unpack: Callable[[bytes, int], tuple[float]], width: int) -> Callable[[int], int]:
        """A handler that pushes a number of fixed width."""

        def handler(at: int) -> int:
            self.push(unpack(self._data, at)[0])
            return at + width

        return handler

    def text(self, unpack: Callable[[bytes, int], tuple[int]], width: int) -> Callable[[int], int]:
        """A handler that pushes a string behind its length."""

        def handler(at: int) -> int:
            begin = at + width
            end = begin + unpack(self._data, at)[0]
            if end > len(self._data):
                raise HostilePickle("the pickle announces a string longer than itself", hint=HINT)
            self.charge(2 * (end - begin) + 60)
            self.push(str(self._data[begin:end], "utf-8", "surrogatepass"))
            return end

        return handler

    def long(self, unpack: Callable[[bytes, int], tuple[int]], width: int) -> Callable[[int], int]:
        """A handler that pushes an integer behind its length."""

        def handler(at: int) -> int:
            size = unpack(self._data, at)[0]
            begin = at + width
            if not 0 <= size <= _LONGEST_INT:
                raise HostilePickle(f"the pickle announces an integer of {size:,} bytes", hint=HINT)
            if begin + size > len(self._data):
                raise IndexError
            self.push(int.from_bytes(self._data[begin : begin + size], "little", signed=True))
            return begin + size

        return handler

    def skip(self, width: int) -> Callable[[int], int]:
        """A handler of an opcode that says something about the pickle itself: PROTO, FRAME."""
        return lambda at: at + width

    def memoize(self, at: int) -> int:
        """MEMOIZE: the next index."""
        self.charge(_ITEM)
        self._memo.append(self._memoizable())
        return at

    def put(self, unpack: Callable[[bytes, int], tuple[int]], width: int) -> Callable[[int], int]:
        """A handler that remembers the top value; pickle numbers them in order, so a gap is an attempt at memory."""

        def handler(at: int) -> int:
            index, value = unpack(self._data, at)[0], self._memoizable()
            if index > len(self._memo):
                raise HostilePickle(f"the pickle remembers a value under the number {index:,}", hint=HINT)
            if index == len(self._memo):
                self.charge(_ITEM)
                self._memo.append(value)
            else:
                self._memo[index] = value
            return at + width

        return handler

    def _memoizable(self) -> object:
        value = self._stack[-1]
        if value is _MARK:
            raise HostilePickle("the pickle uses a mark as a value", hint=HINT)
        return value

    def get(self, unpack: Callable[[bytes, int], tuple[int]], width: int) -> Callable[[int], int]:
        """A handler that pushes a value remembered before."""

        def handler(at: int) -> int:
            self._stack.append(self._memo[unpack(self._data, at)[0]])
            return at + width

        return handler

    def append(self, at: int) -> int:
        """APPEND."""
        value = self._pop()
        self._list().append(value)
        self.charge(_ITEM)
        return at

    def appends(self, at: int) -> int:
        """APPENDS."""
        items = self._items()
        self._list().extend(items)
        self.charge(_ITEM * len(items))
        return at

    def _list(self) -> list[object]:
        target = self._stack[-1]
        if type(target) is not list:
            raise HostilePickle(f"the pickle appends to a {type(target).__name__}", hint=HINT)
        return target

    def setitem(self, at: int) -> int:
        """SETITEM."""
        value, key = self._pop(), self._pop()
        self._set([key, value])
        return at

    def setitems(self, at: int) -> int:
        """SETITEMS."""
        items = self._items()
        self._set(items)
        return at

    def _set(self, items: list[object]) -> None:
        target = self._stack[-1]
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

    def tuple_of(self, count: int) -> Callable[[int], int]:
        """A handler that makes a tuple of the top values."""

        def handler(at: int) -> int:
            items = [self._pop() for _ in range(count)]
            self._tuple(items[::-1])
            return at

        return handler

    def tuple_to_mark(self, at: int) -> int:
        """TUPLE."""
        self._tuple(self._items())
        return at

    def _tuple(self, items: list[object]) -> None:
        """Tuples hold scalars alone, as those of a snapshot do: nested ones can be too deep to be compared."""
        if not all(type(item) in _SCALARS for item in items):
            raise HostilePickle("the pickle has a tuple of containers", hint=HINT)
        self.charge(_ITEM * len(items))
        self.push(tuple(items))


def _handlers(machine: _Machine) -> dict[int, Callable[[int], int]]:
    by_name: dict[str, Callable[[int], int]] = {
        "PROTO": machine.skip(1),
        "FRAME": machine.skip(8),
        "NONE": machine.constant(None),
        "NEWTRUE": machine.constant(True),
        "NEWFALSE": machine.constant(False),
        "EMPTY_DICT": machine.container(dict),
        "EMPTY_LIST": machine.container(list),
        "EMPTY_TUPLE": machine.constant(()),
        "BININT": machine.number(_i4, 4),
        "BININT1": machine.number(_u1, 1),
        "BININT2": machine.number(_u2, 2),
        "BINFLOAT": machine.number(_f8, 8),
        "LONG1": machine.long(_u1, 1),
        "LONG4": machine.long(_i4, 4),
        "SHORT_BINUNICODE": machine.text(_u1, 1),
        "BINUNICODE": machine.text(_u4, 4),
        "BINUNICODE8": machine.text(_u8, 8),
        "MARK": machine.mark,
        "APPEND": machine.append,
        "APPENDS": machine.appends,
        "SETITEM": machine.setitem,
        "SETITEMS": machine.setitems,
        "TUPLE1": machine.tuple_of(1),
        "TUPLE2": machine.tuple_of(2),
        "TUPLE3": machine.tuple_of(3),
        "TUPLE": machine.tuple_to_mark,
        "MEMOIZE": machine.memoize,
        "BINPUT": machine.put(_u1, 1),
        "LONG_BINPUT": machine.put(_u4, 4),
        "BINGET": machine.get(_u1, 1),
        "LONG_BINGET": machine.get(_u4, 4),
    }
    return {CODES[name]: handler for name, handler in by_name.items()}
