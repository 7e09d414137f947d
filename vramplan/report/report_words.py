"""Words that every form of a report uses."""

from vramplan.error_table import Summary


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def error_words(errors: Summary) -> str:
    """`mean error 0.10%, median 0.05%, worst 1.20%`."""
    return f"mean error {errors.mean:.2%}, median {errors.median:.2%}, worst {errors.worst:.2%}"
