import pytest

from vramplan.errors import UsageError
from vramplan.units import GIB, MIB, gib, human, human_change, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * 2**30),
        ("512 MiB", 512 * 2**20),
        ("1.5gib", 3 * 2**29),
        ("1073741824", 2**30),
        ("0", 0),
        ("7b", 7),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["24GB", "24G", "1kb", "3 tb"])
def test_units_with_two_meanings_are_refused_with_the_one_to_write(text: str) -> None:
    with pytest.raises(UsageError, match="ambiguous") as refused:
        parse_bytes(text, "--budget")
    assert "iB" in refused.value.hint
    assert refused.value.message.startswith("--budget")


@pytest.mark.parametrize("text", ["", "lots", "-1GiB", "1e9GiB", "5 parsecs", "99999999999TiB", "nan"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_bytes(text)


def test_rendering() -> None:
    assert gib(3 * GIB // 2) == "1.50"
    assert human(8_519_680) == "8.12 MiB"  # 8,519,680 / 2^20 = 8.125, which rounds to even
    assert human(-2 * GIB) == "-2.00 GiB"
    assert human(512) == "512 B"


def test_a_change_is_in_one_unit_where_both_sides_are_something_in_it() -> None:
    assert human_change(1002 * MIB, 1034 * MIB) == "0.98 GiB -> 1.01 GiB"
    assert human_change(1034 * MIB, 1002 * MIB) == "1.01 GiB -> 0.98 GiB"
    assert human_change(512, GIB) == "512 B -> 1.00 GiB"
    assert human_change(0, 5 * MIB) == "0 B -> 5.00 MiB"
    assert human_change(0, 0) == "0 B -> 0 B"
