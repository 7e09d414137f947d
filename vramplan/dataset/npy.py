"""Numbers out of a .npy file, a piece at a time. No numpy is needed, and nothing in the file is ever executed."""

import ast
import struct
from collections.abc import Iterator
from math import prod
from typing import IO, Any

from vramplan.errors import UsageError

_MAGIC = b"\x93NUMPY"
#: Element types by numpy's `descr` without the byte order, as `struct` names them.
_CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}
#: numpy.lib.format refuses longer headers, too (`_MAX_HEADER_SIZE`).
_LONGEST_HEADER = 10_000
_PIECE = 2**16
_HINT = "write it with numpy.save, one integer per sample"


def read_npy(file: IO[bytes], name: str) -> Iterator[int | float]:
    """The elements of a one-dimensional array of numbers; a UsageError for anything else.

    The format is that of numpy.lib.format: magic, version, length of the header, and the header, a Python literal.
    """
    header = _header(file, name)
    shape, kind = header["shape"], str(header["descr"])
    order, code = kind[:1], _CODES.get(kind[1:])
    if code is None or order not in "<>|=":
        raise UsageError(f"{name} holds elements of type '{kind[:40]}', not numbers", hint=_HINT)
    if prod(shape) != max(shape, default=0):
        raise UsageError(f"{name} holds an array of shape {shape}, not a list of lengths", hint=_HINT)
    size = struct.calcsize("<" + code)
    left = prod(shape)
    while left:
        piece = file.read(min(left, _PIECE) * size)
        if not piece or len(piece) % size:
            raise UsageError(f"{name} ends early: {left:,} of {prod(shape):,} numbers are missing", hint=_HINT)
        left -= len(piece) // size
        for (number,) in struct.iter_unpack((">" if order == ">" else "<") + code, piece):
            yield number


def _header(file: IO[bytes], name: str) -> dict[str, Any]:
    problem = UsageError(f"{name} is not a .npy file", hint=_HINT)
    start = file.read(8)
    width = {1: 2, 2: 4, 3: 4}.get(start[6]) if start[:6] == _MAGIC and len(start) == 8 else None
    if width is None:
        raise problem
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise problem
    try:
        header = ast.literal_eval(file.read(length).decode("utf-8"))
        shape = header["shape"]
        if not isinstance(shape, tuple) or any(type(size) is not int or size < 0 for size in shape):
            raise problem
        header["descr"]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise problem from error
    return dict(header)
