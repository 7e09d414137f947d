"""Which model runs on the tape: a family's own layers, its code observed, or Llama's layers in their place."""

from collections.abc import Callable

from vramplan.architecture.observed.observer import NotObservable
from vramplan.predict.causal_model import CausalModel
from vramplan.predict.families import assumptions, known
from vramplan.predict.observed.model import ObservedModel, UnrolledModel
from vramplan.predict.tape_parts import UnevenRounds
from vramplan.predict.template import Template
from vramplan.scenario import Scenario


def with_model(scenario: Scenario, build: Callable[[type[CausalModel]], Template]) -> Template:
    """What `build` makes of the model that knows most about the scenario; what it leaves open is among its doubts."""
    if known(scenario.architecture):
        return build(CausalModel)
    try:
        try:
            return build(ObservedModel)
        except UnevenRounds:
            return build(UnrolledModel)
    except NotObservable as reason:
        template = build(CausalModel)
        first, *others = assumptions(scenario.architecture)
        template.doubts |= {f"{first} ({reason})", *others}
        return template
