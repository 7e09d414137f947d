import pytest

from vramplan.oom.printed import Printed
from vramplan.units import GIB, KIB, MIB


@pytest.mark.parametrize("text", ["", "2.00", "2.00 GB", "GiB", "-1.00 GiB", "2,00 GiB", "1e3 MiB", "2.00 GiB is"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Printed.read(text)


def test_two_decimals_are_an_interval() -> None:
    found = Printed.read("2.00 GiB")
    # half a hundredth of a GiB on both sides: 2^30 / 200 = 5,368,709.12
    assert (found.low, found.high) == (2 * GIB - 5_368_709, 2 * GIB + 5_368_709)
    assert found.bytes == 2 * GIB
    assert str(found) == "2.00 GiB"


def test_bytes_are_exact() -> None:
    assert Printed.read("512 bytes") == Printed.exact(512)


@pytest.mark.parametrize("size", [1, 1024, 1025, 5 * KIB + 7, MIB, MIB + 1, 77_777_777, GIB, GIB + 1, 139 * GIB + 3])
def test_what_pytorch_prints_covers_the_size(size: int) -> None:
    assert Printed.read(format_size(size)).covers(size)


def format_size(size: int) -> str:
    """c10/cuda/CUDACachingAllocator.cpp `format_size`."""
    if size <= 1024:
        return f"{size} bytes"
    if size <= MIB:
        return f"{size / 1024:.2f} KiB"
    if size <= GIB:
        return f"{size / MIB:.2f} MiB"
    return f"{size / GIB:.2f} GiB"


def test_sums_and_differences_keep_the_interval() -> None:
    one, two = Printed(10, 20), Printed(1, 12)
    assert one + two == Printed(11, 32)
    assert one.less(two) == Printed(0, 19)
