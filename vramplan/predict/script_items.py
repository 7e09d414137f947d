"""What a script and a template are lists of: events by the number of their block, phases, rounds of such items."""

from typing import NamedTuple

from vramplan.ledger import Phase


class Rounds(NamedTuple):
    """Items that happen `times` times."""

    times: int
    reverse: bool
    """Whether the rounds are those of a backward: the last one first (see `timeline.Repeat`)."""
    items: "list[Item]"


#: An allocation (block number), a free (its complement), the beginning of a phase, or rounds.
Item = int | Phase | Rounds
