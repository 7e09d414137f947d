"""The first step, which makes what every later one finds: cuBLAS's workspaces, and the optimizer's states.

Where it puts them decides what the allocator reserves: the states take what the step's activations leave, and those of
the second step need room elsewhere.
"""

from collections.abc import Sequence

from vramplan.ledger import Phase
from vramplan.timeline import Enter, Part

Parts = tuple[Part, ...]


def first_step(step: Parts, products: Sequence[int], workspaces: Parts, states: Parts) -> Parts:
    """The parts of a later step, with what is made on the way.

    `products` says before which parts a workspace each is taken, where it is known; the states are made when the
    optimizer's step begins.
    """
    places = (*[0] * (len(workspaces) - len(products)), *products)
    made: list[tuple[int, Parts]] = [(place, (piece,)) for place, piece in zip(places, workspaces, strict=True)]
    made += [(place + 1, states) for place, part in enumerate(step) if part == Enter(Phase.STEP)]
    written: list[Part] = []
    begun = 0
    for place, pieces in made:
        written += (*step[begun:place], *pieces)
        begun = place
    return (*written, *step[begun:])
