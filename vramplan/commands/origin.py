"""What commands say about a target: which kinds there are, and what another trainer's file said."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vramplan.commands.flags import page

if TYPE_CHECKING:
    from vramplan.api import Foreseen
    from vramplan.importers import Imported
    from vramplan.plan.answer import Plan
    from vramplan.record import Verdict
    from vramplan.scenario import Scenario
    from vramplan.targets import Target

#: For the help of every command that takes one; `targets.resolve` looks for them in another order.
TARGET = (
    "scenario file or name, model, hub id, directory, config.json, a trainer's YAML (TRL, axolotl, LLaMA-Factory,"
    " torchtune) or a peft adapter"
)


def resolve_aloud(text: str, keys: Mapping[str, Any]) -> "Target":
    """The target of `text`, as `targets.resolve` finds it; what was read and assumed for it is told on stderr."""
    from vramplan.targets import resolve

    target = resolve(text, keys)
    if target.origin is not None:
        from vramplan.report.import_text import render_import

        print(f"{render_import(target.origin, page(), warnings=True)}\n", file=sys.stderr)
    for note in dict.fromkeys(scenario.model.note for scenario in target.scenarios if scenario.model.note):
        print(f"warning: {note}\n", file=sys.stderr)
    return target


def origin_text(target: "Target") -> str:
    """The table of an imported target as it stands above its prediction; empty for any other target."""
    if target.origin is None:
        return ""
    from vramplan.report.import_text import render_import

    return render_import(target.origin, page()) + "\n\n"


def origin_json(target: "Target") -> dict[str, Any]:
    """The additive key `import` of an imported target's answer; nothing for any other target."""
    return {} if target.origin is None else {"import": target.origin.to_json()}


def with_origin(foreseen: "Foreseen", target: "Target") -> "Foreseen":
    """The prediction with the import's warnings among its own, before them, and without those that it denies."""
    if target.origin is None:
        return foreseen
    prediction = foreseen.prediction
    own = (text for text in prediction.warnings if text not in target.origin.denied)
    return foreseen._replace(
        prediction=replace(
            prediction,
            verdict=_judged(prediction.verdict, prediction.scenario, target.origin),
            warnings=(*target.origin.warnings, *own),
        )
    )


def plan_with_origin(plan: "Plan", target: "Target") -> "Plan":
    """The plan without the warnings that the import denies, its target's verdict as `with_origin` has it.

    The import's own warnings were told before (`resolve_aloud`).
    """
    if target.origin is None:
        return plan
    verdict = _judged(plan.verdict, plan.scenario, target.origin)
    return replace(plan, verdict=verdict, denied=target.origin.denied)


def _judged(verdict: "Verdict | None", scenario: "Scenario", origin: "Imported") -> "Verdict | None":
    """`tight` where a run does not fit by less than the import says that the prediction may be too high: it may."""
    from vramplan.record import Fit

    above = origin.above(scenario.batch * scenario.seq)
    if verdict is not None and verdict.margin < 0 <= verdict.margin + above:
        return replace(verdict, word=Fit.TIGHT)
    return verdict
