"""Bytes as people write and read them. Everywhere else bytes are plain `int`."""

import re

from vramplan.errors import UsageError

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

_UNITS = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB}
_AMBIGUOUS = {"k": "KiB", "kb": "KiB", "m": "MiB", "mb": "MiB", "g": "GiB", "gb": "GiB", "t": "TiB", "tb": "TiB"}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str, key: str = "size", *, such_as: str = "24GiB") -> int:
    """Bytes of `24GiB`, `512 MiB` or `1073741824`; `24GB` is refused, because it has two meanings 7 % apart.

    `such_as` is what the hint gives as an example where `text` is nothing of the kind.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        hint = f"write a number and a unit, such as {such_as}"
        raise UsageError(f"{key}: '{text}' is not an amount of memory", hint=hint)
    number, unit = match.groups()
    if unit.lower() in _AMBIGUOUS:
        binary = _AMBIGUOUS[unit.lower()]
        raise UsageError(
            f"{key}: '{text}' is ambiguous: {unit} can mean powers of 1000 or of 1024",
            hint=f"write {number}{binary} (powers of 1024), or the number of bytes",
        )
    if unit.lower() not in _UNITS:
        raise UsageError(f"{key}: unknown unit '{unit}' in '{text}'", hint="units: B, KiB, MiB, GiB, TiB")
    size = float(number) * _UNITS[unit.lower()]
    if size >= 2**60:
        raise UsageError(f"{key}: '{text}' is more than any machine holds", hint="write a size below 1024 PiB")
    return int(number) * _UNITS[unit.lower()] if "." not in number else int(size)


def read_size(text: str, key: str, *, least: int = 0) -> int:
    """The same, of at least `least` bytes, for what people hold memory to: a bare `24` is a unit forgotten."""
    size = parse_bytes(text, key)
    if lacks_unit(text, size):
        raise UsageError(f"{key}: '{text}' is a number without a unit", hint=f"write {text.strip()}GiB")
    if size < least:
        raise UsageError(f"{key}: '{text}' leaves nothing to run in", hint="write more than 0, such as 24GiB")
    return size


def lacks_unit(text: str, size: int) -> bool:
    """Whether the text of so many bytes is a bare number of which nobody means bytes: `24`."""
    return text.strip().isdigit() and 0 < size < MIB


def gib(size: int) -> str:
    """`12.34`: GiB with two decimals, for table columns whose header names the unit."""
    return f"{size / GIB:.2f}"


def human(size: int) -> str:
    """`12.34 GiB`, `8.13 MiB`, `512 B`: the unit chosen for a sentence, the sign kept."""
    return _in_unit(size, *_unit(size))


def human_change(before: int, after: int) -> str:
    """`0.98 GiB -> 1.01 GiB`: both in the larger one's unit, unless that leaves nothing of the smaller one."""
    unit = _unit(max(before, after))
    same = 100 * min(before, after) >= unit[0]
    return " -> ".join(_in_unit(size, *unit) if same else human(size) for size in (before, after))


def _unit(size: int) -> tuple[int, str]:
    units = ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
    return next((unit for unit in units if abs(size) >= unit[0]), (1, "B"))


def _in_unit(size: int, factor: int, unit: str) -> str:
    return f"{size} B" if factor == 1 else f"{size / factor:.2f} {unit}"
