"""What commands say about a target: which kinds there are, and what another trainer's file said."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vramplan.commands.flags import page

if TYPE_CHECKING:
    from vramplan.api import Foreseen
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
    """The prediction with the import's warnings among its own, before them, and without those that it denies.

    What does not fit by less than the import says that the prediction may be too high is `tight`: it may turn out so.
    """
    if target.origin is None:
        return foreseen
    from dataclasses import replace

    from vramplan.record import Fit

    prediction, verdict = foreseen.prediction, foreseen.prediction.verdict
    above = target.origin.above(prediction.scenario.batch * prediction.scenario.seq)
    if verdict is not None and verdict.margin < 0 <= verdict.margin + above:
        verdict = replace(verdict, word=Fit.TIGHT)
    own = (text for text in prediction.warnings if text not in target.origin.denied)
    warnings = (*target.origin.warnings, *own)
    return foreseen._replace(prediction=replace(prediction, verdict=verdict, warnings=warnings))
