"""A scenario's timelines, ready for the allocator of its run."""

from vramplan.allocator import Program, Rules, prepare
from vramplan.scenario import Scenario
from vramplan.timeline import Timeline
from vramplan.torch_release import youngest_first


def allocator_rules(scenario: Scenario) -> Rules:
    """How the allocator behaves in the run: by its release of PyTorch and its settings."""
    return Rules(youngest_first(scenario.torch), scenario.expandable_segments)


def replayable(scenario: Scenario, timeline: Timeline) -> Program:
    """The timeline, made ready to be replayed."""
    return prepare(timeline.parts, rules=allocator_rules(scenario))
