import pytest

from vramplan.errors import UsageError
from vramplan.units import GIB, gib, human, parse_bytes


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
