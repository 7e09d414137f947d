import pytest

from vramplan.report.layout import Page, bar, noted_table, table, table_unit, visible


@pytest.mark.parametrize(
    ("share", "cells", "drawn"),
    [(0, 8, ""), (1, 4, "████"), (0.5, 4, "██"), (1 / 64, 8, "▏"), (0.3, 10, "███"), (2, 3, "███"), (-1, 3, "")],
)
def test_a_bar_is_drawn_in_eighths(share: float, cells: int, drawn: str) -> None:
    assert bar(share, cells) == drawn


def test_columns_are_aligned_whatever_their_colour() -> None:
    bold = Page(color=True).bold("12.00")
    lines = table([["name", "GiB"], ["a", bold], [], ["longer", "1.00"]])
    assert lines == ["name      GiB", f"a       {bold}", "", "longer   1.00"]
    assert visible(lines[1]) == 13


def test_a_pipe_is_never_wrapped() -> None:
    assert Page().wrap("word " * 100) == ["word " * 100]
    assert all(len(line) <= 30 for line in Page(30).wrap("word " * 100, indent="  "))


def test_an_indented_text_is_indented_on_every_line() -> None:
    assert Page(12).indented("one two three", "    ", hanging="  ") == ["    one two", "      three"]
    assert Page().indented("one two three", "    ") == ["    one two three"]


def test_notes_stand_below_their_rows_where_the_page_is_narrow() -> None:
    rows = [["GiB", "change", "cost"], ["1.00", "fused loss", "another package"], ["0.50", "rank 8", ""]]
    assert noted_table(rows, Page(), left=(1, 2)) == table(rows, left=(1, 2))
    assert noted_table(rows, Page(17), left=(1, 2)) == [
        " GiB  change",
        "1.00  fused loss",
        "     another",
        "     package",
        "0.50  rank 8",
    ]


def test_small_tables_are_in_mib() -> None:
    assert table_unit(2**30) == ("GiB", 2**30)
    assert table_unit(2**30 - 1) == ("MiB", 2**20)
