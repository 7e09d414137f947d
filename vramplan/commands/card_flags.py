"""The flags that say how much of a card a run may hold, which `predict`, `plan` and `inspect` share."""

from argparse import ArgumentParser

from vramplan.commands.flags import size
from vramplan.errors import UsageError


def add_limit_flags(parser: ArgumentParser) -> None:
    """`--budget` or `--reserve`, not both."""
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument(
        "--budget", type=size("--budget", least=1), metavar="SIZE", help="what the process may hold, e.g. 24GiB"
    )
    limit.add_argument(
        "--reserve", type=size("--reserve"), metavar="SIZE", default=0, help="part of the card's capacity to leave free"
    )


def check_reserve(reserve: int, card: str) -> None:
    """Refuse a `--reserve` of no card, or one that leaves nothing of `card` (a catalogue name, empty for none)."""
    from vramplan.catalog.gpus import gpu
    from vramplan.units import human

    if not reserve:
        return
    if not card:
        raise UsageError(
            "--reserve leaves a part of a card free, and no card is named", hint="add --gpu, or use --budget"
        )
    capacity = gpu(card).capacity
    if reserve >= capacity:
        raise UsageError(f"--reserve: {human(reserve)} leaves nothing of {card}", hint=f"it has {human(capacity)}")
