"""Words that every form of a report uses."""

from collections.abc import Sequence

from vramplan.error_table import Summary
from vramplan.ledger import Basis, Entry


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def basis_words(entries: Sequence[Entry]) -> str:
    """How components are known: `exact: weights, adapters; modelled: activations`."""
    parts = {basis: [e.component.value for e in entries if e.basis is basis and e.bytes] for basis in Basis}
    return "; ".join(f"{basis}: {', '.join(dict.fromkeys(names))}" for basis, names in parts.items() if names)


def error_cells(errors: Summary) -> list[str]:
    """Mean, median and worst: `0.10%`, `0.05%`, `1.20%`."""
    return [f"{size:.2%}" for size in (errors.mean, errors.median, errors.worst)]


def error_words(errors: Summary) -> str:
    """`mean error 0.10%, median 0.05%, worst 1.20%`."""
    mean, median, worst = error_cells(errors)
    return f"mean error {mean}, median {median}, worst {worst}"
