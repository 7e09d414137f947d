"""A pickle of plain data, read without executing anything in it.

A pickle is a program for a small stack machine. Python's own unpickler can import modules and call what it finds; a
restricted `find_class` closes that door, but not those of memory (a memo index of 4 billion, a length of 8 EiB) and of
time (a key whose hash walks a tree that is shared a billionfold). This machine knows only the opcodes that make
dictionaries, lists, tuples of scalars, strings, numbers, booleans and None, on a stack of their own (`pickle_stack`).
It has no opcode that imports, calls, builds an object or asks for a persistent id, so there is nothing to restrict: any
other opcode is refused by name.

Opcodes and their arguments: Python's Lib/pickletools.py, protocols 2 to 5.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from vramplan.oom.pickle_refusal import CODES, HINT, HostilePickle, refused
from vramplan.oom.pickle_stack import PickleStack
from vramplan.units import GIB, human

Scalar = str | int | float | bool | None
Plain = Scalar | tuple[Scalar, ...] | list["Plain"] | dict[str | int, "Plain"]

#: No number of a snapshot needs more: addresses and sizes have 8 bytes.
_LONGEST_INT = 16
_STOP = CODES["STOP"]


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
        return _run(data, limits)
    except (IndexError, struct.error) as error:
        raise HostilePickle("the pickle is cut off or broken", hint=HINT) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise HostilePickle(f"the pickle is broken: {error}", hint=HINT) from error


_u1: Callable[[bytes, int], tuple[int]] = struct.Struct("<B").unpack_from
_u2: Callable[[bytes, int], tuple[int]] = struct.Struct("<H").unpack_from
_u4: Callable[[bytes, int], tuple[int]] = struct.Struct("<I").unpack_from
_i4: Callable[[bytes, int], tuple[int]] = struct.Struct("<i").unpack_from
_u8: Callable[[bytes, int], tuple[int]] = struct.Struct("<Q").unpack_from
_f8: Callable[[bytes, int], tuple[float]] = struct.Struct(">d").unpack_from


def _run(data: bytes, limits: Limits) -> Plain:
    """Act on the stack, opcode by opcode."""
    stack = PickleStack(limits.memory, limits.depth)
    acts, reads = _without_argument(stack), _with_argument(data, stack)
    values, most = stack.values, limits.stack
    at = 0
    while (opcode := data[at]) != _STOP:
        at += 1
        if opcode in reads:
            at = reads[opcode](at)
        elif opcode in acts:
            acts[opcode]()
        else:
            raise refused(opcode)
        if len(values) > most:
            raise HostilePickle(f"the pickle keeps more than {most:,} values waiting", hint=HINT)
    return stack.result()  # type: ignore[return-value]  # nothing else is pushed


def _without_argument(stack: PickleStack) -> dict[int, Callable[[], None]]:
    push = stack.push
    by_name: dict[str, Callable[[], None]] = {
        "NONE": lambda: push(None),
        "NEWTRUE": lambda: push(True),
        "NEWFALSE": lambda: push(False),
        "EMPTY_DICT": lambda: push({}),
        "EMPTY_LIST": lambda: push([]),
        "EMPTY_TUPLE": lambda: push(()),
        "MARK": stack.mark,
        "APPEND": stack.append,
        "APPENDS": stack.extend,
        "SETITEM": stack.set_item,
        "SETITEMS": stack.set_items,
        "TUPLE1": lambda: stack.tuple_of(1),
        "TUPLE2": lambda: stack.tuple_of(2),
        "TUPLE3": lambda: stack.tuple_of(3),
        "TUPLE": stack.tuple_to_mark,
        "MEMOIZE": stack.remember,
    }
    return {CODES[name]: act for name, act in by_name.items()}


class _Arguments:
    """Handlers of opcodes with an argument: from the position behind the opcode to the one behind the argument."""

    def __init__(self, data: bytes, stack: PickleStack) -> None:
        self._data = data
        self._stack = stack

    def skip(self, width: int) -> Callable[[int], int]:
        """Of an opcode that says something about the pickle itself: PROTO, FRAME."""
        return lambda at: at + width

    def number(self, unpack: Callable[[bytes, int], tuple[float]], width: int) -> Callable[[int], int]:
        """Push a number of fixed width."""
        data, push = self._data, self._stack.push

        def handler(at: int) -> int:
            push(unpack(data, at)[0])
            return at + width

        return handler

    def text(self, unpack: Callable[[bytes, int], tuple[int]], width: int) -> Callable[[int], int]:
        """Push a string behind its length."""
        data, stack = self._data, self._stack

        def handler(at: int) -> int:
            begin = at + width
            end = begin + unpack(data, at)[0]
            if end > len(data):
                raise HostilePickle("the pickle announces a string longer than itself", hint=HINT)
            stack.charge(2 * (end - begin) + 60)
            stack.push(str(data[begin:end], "utf-8", "surrogatepass"))
            return end

        return handler

    def long(self, unpack: Callable[[bytes, int], tuple[int]], width: int) -> Callable[[int], int]:
        """Push an integer behind its length."""
        data, push = self._data, self._stack.push

        def handler(at: int) -> int:
            size = unpack(data, at)[0]
            begin = at + width
            if not 0 <= size <= _LONGEST_INT:
                raise HostilePickle(f"the pickle announces an integer of {size:,} bytes", hint=HINT)
            if begin + size > len(data):
                raise IndexError
            push(int.from_bytes(data[begin : begin + size], "little", signed=True))
            return begin + size

        return handler

    def put(self, unpack: Callable[[bytes, int], tuple[int]], width: int) -> Callable[[int], int]:
        """Remember the top value under a number."""
        data, remember_as = self._data, self._stack.remember_as

        def handler(at: int) -> int:
            remember_as(unpack(data, at)[0])
            return at + width

        return handler

    def get(self, unpack: Callable[[bytes, int], tuple[int]], width: int) -> Callable[[int], int]:
        """Push a value remembered before; it costs nothing again."""
        data, values, remembered = self._data, self._stack.values, self._stack.remembered

        def handler(at: int) -> int:
            values.append(remembered[unpack(data, at)[0]])
            return at + width

        return handler


def _with_argument(data: bytes, stack: PickleStack) -> dict[int, Callable[[int], int]]:
    read = _Arguments(data, stack)
    by_name: dict[str, Callable[[int], int]] = {
        "PROTO": read.skip(1),
        "FRAME": read.skip(8),
        "BININT": read.number(_i4, 4),
        "BININT1": read.number(_u1, 1),
        "BININT2": read.number(_u2, 2),
        "BINFLOAT": read.number(_f8, 8),
        "LONG1": read.long(_u1, 1),
        "LONG4": read.long(_i4, 4),
        "SHORT_BINUNICODE": read.text(_u1, 1),
        "BINUNICODE": read.text(_u4, 4),
        "BINUNICODE8": read.text(_u8, 8),
        "BINPUT": read.put(_u1, 1),
        "LONG_BINPUT": read.put(_u4, 4),
        "BINGET": read.get(_u1, 1),
        "LONG_BINGET": read.get(_u4, 4),
    }
    return {CODES[name]: handler for name, handler in by_name.items()}
