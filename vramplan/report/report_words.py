"""Words that every form of a report uses."""

from vramplan.error_table import Summary


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def error_cells(errors: Summary) -> list[str]:
    """Mean, median and worst: `0.10%`, `0.05%`, `1.20%`."""
    return [f"{size:.2%}" for size in (errors.mean, errors.median, errors.worst)]


def error_words(errors: Summary) -> str:
    """`mean error 0.10%, median 0.05%, worst 1.20%`."""
    mean, median, worst = error_cells(errors)
    return f"mean error {mean}, median {median}, worst {worst}"
