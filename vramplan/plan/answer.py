"""One scenario's plan: the frontier or another goal, the recommended setting, and what to change if it does not fit."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from vramplan.plan.advice import Advice, advise
from vramplan.plan.frontier import BATCHES, SHORTEST, Row, frontier
from vramplan.plan.goals import Goal, reach
from vramplan.plan.limit import Limit, Probe
from vramplan.predict.changes import changes_but
from vramplan.predict.context_length import context_length
from vramplan.predict.stops import stops
from vramplan.predict.warnings import model_warnings
from vramplan.record import SCHEMA, Verdict
from vramplan.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Plan:
    """What fits, for one scenario."""

    scenario: Scenario
    """As given."""
    limit: Limit
    goal: Goal
    rows: tuple[Row, ...]
    """The frontier, for the goal of most tokens; otherwise empty."""
    best: Row | None
    """The setting that reaches the goal; None when none fits."""
    verdict: Verdict | None
    """Of the scenario as given; None for a goal other than most tokens."""
    best_verdict: Verdict | None
    """Of the best setting, which is often the last that fits: `tight`."""
    advice: tuple[Advice, ...] = ()
    """Lists of changes after which the scenario as given fits, the recommended one first."""
    denied: Collection[str] = frozenset()
    """Warnings that are not true of the run, for what no scenario says."""

    @property
    def proposed(self) -> Scenario | None:
        """What to run: the target with the changes that make it fit when it does not, else the best setting."""
        if self.advice:
            return self.advice[0].scenario
        return self.best.scenario if self.best else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What holds for every row: how the model is stored, and why a run would end at its first step all the same.

        Of what is proposed, or of the target where nothing is.
        """
        scenario = self.proposed or self.scenario
        said = (*model_warnings(scenario), *stops(scenario))
        return tuple(text for text in said if text not in self.denied)

    @property
    def feasible(self) -> bool:
        """Whether anything fits."""
        return self.proposed is not None

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: plan`."""
        return {
            "schema": SCHEMA,
            "kind": "plan",
            "goal": self.goal.value,
            "scenario": self.scenario.to_mapping(),
            "context_length": context_length(self.scenario),
            "verdict": self.verdict.to_json() if self.verdict else None,
            "frontier": [_row_json(row) for row in self.rows],
            "best": {**_row_json(self.best), "scenario": self.best.scenario.to_mapping()} if self.best else None,
            "best_verdict": self.best_verdict.to_json() if self.best_verdict else None,
            "advice": [advice.to_json() for advice in self.advice],
            "proposed": self.proposed.to_mapping() if self.proposed else None,
            "warnings": list(self.warnings),
        }


def plan(
    scenario: Scenario,
    limit: Limit,
    goal: Goal = Goal.MAX_TOKENS,
    batches: Sequence[int] = BATCHES,
    *,
    lacks: Collection[str] = (),
) -> Plan:
    """What fits `limit`: the frontier and its setting of most tokens per step, or the one setting of another goal.

    When the scenario as given does not fit, or is tight, there is advice as well, of changes that its trainer does not
    `lack`.
    """
    probe = Probe(limit)
    if goal is not Goal.MAX_TOKENS:
        best = reach(goal, scenario, probe)
        return Plan(scenario, limit, goal, (), best, None, _verdict(best, probe))
    verdict = probe.verdict(scenario)  # refuses early when nothing says what may be held
    rows = frontier(scenario, limit, batches)
    best = most_tokens(rows, limit)
    advice = advise(scenario, probe, changes_but(lacks))
    return Plan(scenario, limit, goal, rows, best, verdict, _verdict(best, probe), advice)


def _verdict(best: Row | None, probe: Probe) -> Verdict | None:
    return probe.verdict(best.scenario) if best else None


def most_tokens(rows: Sequence[Row], limit: Limit) -> Row | None:
    """The setting of most tokens per step within the model's context length; of equals, the longest sequences.

    Where the context is shorter than what fits even in the largest batch, the batch is grown instead.
    """
    if not rows:
        return None
    context = context_length(rows[0].scenario)
    if context is None or context < SHORTEST:
        return max(rows, key=lambda row: row.tokens)
    best = max(rows, key=lambda row: row.scenario.batch * min(row.scenario.seq, context))
    if best.scenario.seq <= context:
        return best
    return reach(Goal.MAX_BATCH, replace(best.scenario, seq=context), Probe(limit))


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "batch": row.scenario.batch,
        "seq": row.scenario.seq,
        "rank": row.scenario.lora.rank,
        "model": row.scenario.model.name,
        "gpu": row.scenario.gpu or None,
        "tokens_per_step": row.tokens,
        "allocated": row.allocated,
        "device": row.device,
        "binding": {
            "component": row.binding.value,
            "phase": row.phase.value,
            "bytes": row.binding_bytes,
        },
    }
