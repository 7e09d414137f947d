"""Which model runs on the tape: a family's own layers, its code observed, or Llama's layers in their place."""

from collections.abc import Callable

from vramplan.predict.causal_model import CausalModel
from vramplan.predict.families import assumptions, known
from vramplan.predict.script import UnevenRounds
from vramplan.predict.template import Template
from vramplan.scenario import Scenario

Build = Callable[[type[CausalModel]], Template]


def with_model(scenario: Scenario, build: Build) -> Template:
    """What `build` makes of the model that knows most about the scenario; what it leaves open is among its doubts."""
    return build(CausalModel) if known(scenario.architecture) else _outside_the_table(scenario, build)


def _outside_the_table(scenario: Scenario, build: Build) -> Template:
    # a cold start with a family of the table is not kept waiting for these
    from vramplan.architecture.observed.observer import NotObservable
    from vramplan.architecture.own_torch import own_torch
    from vramplan.predict.observed.model import ObservedModel, UnrolledModel

    try:
        with own_torch():
            try:
                return build(ObservedModel)
            except UnevenRounds:
                return build(UnrolledModel)
    except NotObservable as reason:
        template = build(CausalModel)
        first, *others = assumptions(scenario.architecture)
        template.doubts |= {f"{first} ({reason})", *others}
        return template
