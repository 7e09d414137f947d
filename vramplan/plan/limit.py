"""Does a run fit, and if not, by how much? The verdict of `predict`, with a bound before it that needs no replay."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from vramplan.allocator import Program, Replay, replay
from vramplan.allocator.rules import MIN_BLOCK
from vramplan.errors import UsageError
from vramplan.predict.forecast import forecast, ledger
from vramplan.predict.overheads import budget_of, context_of
from vramplan.predict.verdict import ERROR, judge
from vramplan.record import Fit, Verdict
from vramplan.scenario import Scenario
from vramplan.timeline import Timeline
from vramplan.units import MIB


def sure_room(allocated: int) -> int:
    """Room in which a run whose tensors take `allocated` is taken to fit without a replay: 4/3 of it, and 128 MiB.

    Only asked while a search is far from its answer, which is replayed itself. Near its cap the allocator gives
    cached segments back, so little is lost to fragmentation: of 200 random runs of the catalogue's models all fitted in
    4/3 of what their tensors take, and 198 in 6/5 (benchmarks/plan_cases.py repeats this). The constant is for models
    so small that segments of 2 and 20 MiB matter.
    """
    return allocated * 4 // 3 + 128 * MIB


#: Shares of the room in each of which a run must fit for the verdict's word to be this one, or a better one: the room
#: itself, and what the engine's measured error leaves of it.
_SHARES = {Fit.TIGHT: (1.0,), Fit.FITS: (1.0, 1 + ERROR["analytic"].low)}


@dataclass(frozen=True, slots=True)
class Limit:
    """What a run may hold on its card, context included."""

    budget: int | None = None
    """Bytes; None for the card's own capacity."""
    reserve: int = 0
    """Bytes of the card's capacity to leave free."""

    def bytes(self, scenario: Scenario) -> int:
        """The budget in bytes; a UsageError when nothing says what it is."""
        budget = budget_of(scenario, self.budget, self.reserve)
        if budget is None:
            raise UsageError(
                "neither a card nor a budget is given", hint="name a card (--gpu rtx4090) or a budget (--budget 24GiB)"
            )
        return budget

    def room(self, scenario: Scenario) -> int:
        """The budget less the context: what torch's allocator may reserve."""
        return max(self.bytes(scenario) - context_of(scenario), 0)


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks whether runs fit a limit. Searches come back to the same runs: an answer is worked out once."""

    limit: Limit
    _played: dict[tuple[Hashable, int], Replay] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By run and room."""
    _verdicts: dict[Hashable, Verdict] = field(default_factory=dict, init=False, repr=False, compare=False)

    def allocated(self, scenario: Scenario) -> int:
        """Bytes of all tensors at the highest moment."""
        return ledger(scenario).peak

    def gap(self, scenario: Scenario) -> int:
        """Bytes that the run lacks: 0 or less when it fits, then what its tensors leave free.

        Not replayed where the tensors leave so much free that fitting is not in doubt.
        """
        room = self.limit.room(scenario)
        allocated = self.allocated(scenario)
        return allocated - room if sure_room(allocated) <= room else self.replayed_gap(scenario)

    def replayed_gap(self, scenario: Scenario) -> int:
        """The same, replayed wherever the tensors alone have room."""
        room = self.limit.room(scenario)
        allocated = self.allocated(scenario)
        if allocated > room:
            return allocated - room
        played = self._replay(scenario, room)
        if played.oom is None:
            return allocated - room
        return max(played.oom.reserved + played.oom.segment - room, 1)

    def fits(self, scenario: Scenario, at_least: Fit = Fit.TIGHT) -> bool:
        """Whether `predict`'s verdict on the run is `at_least` this word; as there, whatever may fit is replayed."""
        return self._fits(scenario, at_least, replayed=True)

    def seems_to_fit(self, scenario: Scenario, at_least: Fit = Fit.TIGHT) -> bool:
        """The same, not replayed where fitting is not in doubt."""
        return self._fits(scenario, at_least, replayed=False)

    def _fits(self, scenario: Scenario, at_least: Fit, *, replayed: bool) -> bool:
        room, allocated, shares = self.limit.room(scenario), self.allocated(scenario), _SHARES[at_least]
        least = int(room * min(shares))
        if allocated > least:
            return False
        if not replayed and sure_room(allocated) <= least:
            return True
        return all(self._replay(scenario, int(room * share)).oom is None for share in shares)

    def held(self, scenario: Scenario) -> Replay:
        """What the allocator does in a run that fits."""
        return self._replay(scenario, self.limit.room(scenario))

    def verdict(self, scenario: Scenario) -> Verdict:
        """What `predict` says; a UsageError when nothing says what may be held."""
        key = scenario.key
        if key not in self._verdicts:
            budget, program = self.limit.bytes(scenario), self._program(scenario)
            found = judge(scenario, program, replay(program), budget=budget, reserve=0, engine="analytic")
            assert found is not None
            self._verdicts[key] = found
        return self._verdicts[key]

    def _replay(self, scenario: Scenario, room: int) -> Replay:
        key = scenario.key, room
        if key not in self._played:
            self._played[key] = replay(self._program(scenario), budget=room)
        return self._played[key]

    def _program(self, scenario: Scenario) -> Program:
        return forecast(scenario, "cuda").program()


def allocated_peak(timeline: Timeline) -> int:
    """Bytes of all tensors, each rounded up to a block, at the highest moment: what has to be reserved at the least."""
    return timeline.ledger({}, granularity=MIN_BLOCK).peak
