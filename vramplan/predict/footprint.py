"""What a run's timeline amounts to on its device: the ledger, what the allocator reserves, and whether it fits."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from vramplan.allocator import Program, replay
from vramplan.ledger import Basis, Component, Ledger, Phase
from vramplan.predict.overheads import card, context_entries, workspace_entries
from vramplan.predict.verdict import judge
from vramplan.record import Device, Verdict
from vramplan.scenario import Scenario
from vramplan.timeline import Timeline


class Footprint(NamedTuple):
    """A run on its device; on cuda allocated counts whole blocks, and the context and workspaces are told apart."""

    ledger: Ledger
    reserved: Mapping[Phase, int]
    """Running high-water mark of the allocator's segments at the end of each phase; empty on cpu."""
    verdict: Verdict | None


def footprint(
    scenario: Scenario,
    device: Device,
    timeline: Timeline,
    program: Callable[[], Program],
    basis: Mapping[Component, Basis],
    *,
    engine: str,
    budget: int | None,
    reserve: int,
) -> Footprint:
    """On a CPU the timeline's ledger; on cuda that of its replay, for which `program` makes the timeline ready.

    The verdict is against `budget`, or the card's capacity less `reserve`; without card and budget there is none.
    """
    if device == "cpu":
        return Footprint(timeline.ledger(basis), {}, None)
    ready = program()
    played = replay(ready)
    ledger = played.ledger(basis)
    entries = (*workspace_entries(scenario, ledger.entries), *context_entries(card(scenario), ledger.phases))
    return Footprint(
        Ledger(entries, ledger.steady),
        {mark.phase: mark.reserved for mark in played.marks},
        judge(scenario, ready, played, budget=budget, reserve=reserve, engine=engine),
    )
