"""Hypothesis strategy for well-formed timelines: nested repeats, blocks freed by a later repeat, blocks never freed."""

from collections.abc import Iterator
from itertools import count

from hypothesis import strategies as st

from vramplan.ledger import Component, Phase
from vramplan.timeline import Alloc, EmptyCache, Enter, Free, Part, Repeat, Timeline

COMPONENTS = (Component.WEIGHTS, Component.ACTIVATIONS, Component.WORKSPACE)
PHASES = (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD)

# Around every threshold of the allocator: 512 B, 1 MiB, 10 MiB, 20 MiB; zero is an empty tensor.
_EDGES = [0, 1, 511, 512, 513, 2**20 - 1, 2**20, 2**20 + 1, 10 * 2**20 - 1, 10 * 2**20, 20 * 2**20, 20 * 2**20 + 1]
SIZES = st.one_of(st.sampled_from(_EDGES), st.integers(1, 3 * 2**20), st.integers(1, 32).map(lambda mib: mib * 2**20))


@st.composite
def timelines(draw: st.DrawFn, times: int = 9) -> Timeline:
    """A timeline whose repeats, at most two deep, have up to `times` rounds."""
    parts, _ = _body(draw, count(), times, 0)
    return Timeline(parts)


def _body(draw: st.DrawFn, numbers: Iterator[int], times: int, depth: int) -> tuple[tuple[Part, ...], list[int]]:
    """Parts, and the blocks allocated directly among them that are still held at their end."""
    parts: list[Part] = []
    held: list[int] = []
    unfreed: list[tuple[int, list[int]]] = []  # rounds of an earlier repeat, and the blocks that each round left
    for kind in draw(st.lists(st.sampled_from("aaaaffferruu"), min_size=1, max_size=9)):
        if kind == "a":
            held.append(next(numbers))
            parts.append(Alloc(held[-1], draw(SIZES), draw(st.sampled_from(COMPONENTS)), f"block {held[-1]}"))
        elif kind == "f" and held:
            parts.append(Free(held.pop(draw(st.integers(0, len(held) - 1)))))
        elif kind == "e":
            parts.append(draw(st.one_of(st.just(EmptyCache()), st.sampled_from(PHASES).map(Enter))))
        elif kind == "r" and depth < 2:
            rounds = draw(st.integers(0, times))
            body, left = _body(draw, numbers, times, depth + 1)
            parts.append(Repeat(body, rounds, draw(st.booleans())))
            unfreed += [(rounds, left)] if left else []
        elif kind == "u" and unfreed:
            rounds, blocks = unfreed.pop()
            body, left = _body(draw, numbers, times, depth + 1)
            unfreed += [(rounds, left)] if left else []
            frees: list[Part] = [Free(block) for block in blocks]
            whole = (*body, *frees) if draw(st.booleans()) else (*frees, *body)
            parts.append(Repeat(whole, rounds, draw(st.booleans())))
    return tuple(parts), held
