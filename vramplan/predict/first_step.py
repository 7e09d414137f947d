"""The first step, which makes what every later one finds: cuBLAS's workspaces, and the optimizer's states.

Where it puts them decides what the allocator reserves: the states take what the step's activations leave, and those of
the second step need room elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from vramplan.ledger import Phase
from vramplan.timeline import Alloc, Enter, Free, Part, Repeat

Parts = tuple[Part, ...]
#: Block numbers of the second step begin here where the first leaves blocks to it, above those of an evaluation.
_SECOND = 1 << 41


def first_step(step: Parts, workspaces: Sequence[tuple[int, Part]], states: Parts, clipped: int | None) -> Parts:
    """The parts of a later step, with what is made on the way.

    Each of the workspaces is taken before the part it comes with; the states are made when the optimizer's step begins,
    once the gradients are clipped: with the free of block `clipped`, if they are.
    """
    made: list[tuple[int, Parts]] = [(place, (piece,)) for place, piece in workspaces]
    made.append((_optimizer_begins(step, clipped), states))
    written: list[Part] = []
    begun = 0
    for place, pieces in made:
        written += (*step[begun:place], *pieces)
        begun = place
    return (*written, *step[begun:])


def _optimizer_begins(step: Parts, clipped: int | None) -> int:
    """Where the optimizer's own step begins: behind the clipping of gradients, if they are; the end without a step."""
    if Enter(Phase.STEP) not in step:
        return len(step)
    return step.index(Enter(Phase.STEP) if clipped is None else Free(clipped)) + 1


def two_steps(first: Parts, later: Parts) -> Parts:
    """A first step, then one like all later ones.

    `later` may begin by allocating blocks that the step before it left in use. Each step leaves as many as it began
    with, in the same order. So these allocations are taken out of both steps, with their frees out of the first, and
    the second frees what the first has left.
    """
    numbers = sorted(_blocks(later, Alloc))
    left = sorted({*numbers} - {*_blocks(later, Free)})
    if not left:
        return (*first, *later)
    given = dict(zip(numbers, left, strict=False))  # of the step before: its blocks have the lowest numbers

    def found_nothing(part: Alloc | Free) -> Alloc | Free | None:
        return None if part.block in given else part

    def gives_back(part: Alloc | Free) -> Alloc | Free | None:
        if part.block not in given:
            return part._replace(block=part.block + _SECOND)
        return Free(given[part.block]) if isinstance(part, Free) else None

    return (*changed(first, found_nothing), *changed(later, gives_back))


def _blocks(parts: Iterable[Part], kind: type[Alloc] | type[Free]) -> Iterator[int]:
    for part in parts:
        if isinstance(part, Repeat):
            yield from _blocks(part.body, kind)
        elif isinstance(part, kind):
            yield part.block


def changed(parts: Iterable[Part], change: Callable[[Alloc | Free], Alloc | Free | None]) -> Iterator[Part]:
    """The parts with every request and return changed; without those that come to nothing."""
    for part in parts:
        if isinstance(part, Repeat):
            if body := tuple(changed(part.body, change)):
                yield part._replace(body=body)
        elif not isinstance(part, Alloc | Free):
            yield part
        elif (other := change(part)) is not None:
            yield other
