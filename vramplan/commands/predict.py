"""`vramplan predict`: what a run will need."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.card_flags import add_limit_flags, check_reserve
from vramplan.commands.data_flags import add_data_flags, asks_for_data
from vramplan.commands.flags import (
    add_device,
    add_engine,
    add_json,
    add_path,
    add_scenario_flags,
    json_text,
    overrides,
    page,
    writable,
)
from vramplan.commands.origin import TARGET
from vramplan.errors import UsageError, nearest

if TYPE_CHECKING:
    from vramplan.api import Foreseen
    from vramplan.dataset.outlook import Outlook
    from vramplan.explain import Explanation
    from vramplan.ledger import Component
    from vramplan.record import Prediction
    from vramplan.scenario import Scenario
    from vramplan.targets import Target

EXAMPLES = """\
  vramplan predict llama-2-7b --gpu rtx3090 --batch 4 --seq 512
  vramplan predict scenarios/quickstart.yaml --no-double-quant --json
  vramplan predict llama-2-7b --gpu rtx3090 --explain quant-state
  vramplan predict llama-2-7b --gpu rtx3090 --engine trace --timeline step.html
  vramplan predict ./my-model --set lora.targets=[q_proj,v_proj] --budget 24GiB
  vramplan predict llama-3.1-8b --gpu rtx4090 --batch 4 --seq 4096 --data train.jsonl --tokenizer ./my-model
  vramplan predict scenarios/stacks.yaml

a scenario file with `matrix: {seq: [512, 1024], lora.rank: [8, 64]}` is one scenario per combination."""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(parser, "target", metavar="TARGET", help=TARGET)
    add_engine(parser, "analytic (closed form, the default) or trace (the real libraries on fake tensors)")
    add_device(parser, "cuda", "whose memory is meant: cuda (default) or cpu")
    add_limit_flags(parser)
    parser.add_argument(
        "--explain",
        type=_component,
        nargs="?",
        const=(),
        metavar="COMPONENT",
        help="work out every number of the peak, or those of one component (weights, quant-state, activations, ...)",
    )
    add_path(
        parser, "--timeline", type=_picture, metavar="FILE", help="draw memory over the run into FILE, .html or .svg"
    )
    add_json(parser)
    add_data_flags(parser)
    add_scenario_flags(parser)


def _component(word: str) -> "tuple[Component, ...]":
    """What `--explain` names; an empty tuple stands for all."""
    from vramplan.ledger import Component

    allowed = tuple(component.value for component in Component if component is not Component.UNKNOWN)
    if word not in allowed:
        raise UsageError(
            f"--explain: unknown component '{word}'",
            hint=f"{nearest(word, allowed)}components: {', '.join(allowed)}; a target goes before --explain",
        )
    return (Component(word),)


def _picture(text: str) -> Path:
    """The file that `--timeline` names, if it can be written."""
    from vramplan.report.timeline_plot import PICTURES

    path: Path = writable("--timeline")(text)
    if path.suffix.lower() not in PICTURES:
        hint = f"write a name that ends in {' or '.join(PICTURES)}"
        raise UsageError(f"--timeline: cannot write '{text}'", hint=hint)
    return path


def run(args: Namespace) -> Answer:
    """Predict every scenario of the target; no when any of them does not fit."""
    from vramplan.commands.origin import with_origin
    from vramplan.targets import resolve

    target = resolve(args.target, overrides(args))
    for option in ("explain", "timeline"):
        if getattr(args, option) is not None:
            target.single(f"--{option}")
    outlook = _outlook(target, args) if asks_for_data(args) else None
    scenarios = (outlook.longest,) if outlook else target.scenarios
    found = [with_origin(_foresee(scenario, args), target) for scenario in scenarios]
    predictions = tuple(foreseen.prediction for foreseen in found)
    if args.timeline is not None:
        _draw(found[0], args.timeline)
    unfit = any(p.verdict is not None and not p.verdict.fits for p in predictions)
    code = int(unfit or (outlook is not None and not outlook.fits))
    if len(predictions) > 1:
        text = json_text([p.to_json() for p in predictions]) if args.json else _table(predictions)
    else:
        explanations = _explain(found[0], args.explain) if args.explain is not None else []
        render = _json if args.json else _text
        text = render(predictions[0], target, explanations, outlook, args)
    return Answer(text, code, predictions)


def _json(
    prediction: "Prediction",
    target: "Target",
    explanations: "Sequence[Explanation]",
    outlook: "Outlook | None",
    args: Namespace,
) -> str:
    """One prediction's object with what was asked for beside it; in a list where a matrix has one cell."""
    from vramplan.commands.origin import origin_json

    body = prediction.to_json() | origin_json(target)
    if args.explain is not None:
        body["explain"] = [explanation.to_json() for explanation in explanations]
    if outlook:
        from vramplan.dataset.outlook_json import outlook_json

        body["dataset"] = outlook_json(outlook)
    return json_text([body] if target.is_matrix else body)


def _text(
    prediction: "Prediction",
    target: "Target",
    explanations: "Sequence[Explanation]",
    outlook: "Outlook | None",
    args: Namespace,
) -> str:
    """One prediction as people read it, with what was asked for above it and before its verdict."""
    from vramplan.commands.origin import origin_text
    from vramplan.predict.levers import levers
    from vramplan.report.terminal import render_prediction

    above = origin_text(target) + _explained(explanations, args.explain, prediction)
    lines = _before_verdict(prediction, outlook, args)
    return above + render_prediction(
        prediction, page(), levers=levers(prediction, lacks=target.lacks), before_verdict=lines
    )


def _explain(foreseen: "Foreseen", wanted: "tuple[Component, ...]") -> "list[Explanation]":
    from vramplan.explain import explain

    return [found for found in explain(foreseen) if found.component in wanted or not wanted]


def _explained(
    explanations: "Sequence[Explanation]", wanted: "tuple[Component, ...] | None", prediction: "Prediction"
) -> str:
    """The explanations as text above the prediction, whose verdict stays the last line."""
    if wanted is None:
        return ""
    if not explanations:
        return f"{wanted[0]} holds nothing at the peak ({prediction.ledger.peak_phase})\n\n"
    from vramplan.report.explain_text import render_explanation  # a prediction that explains nothing does not wait

    return render_explanation(explanations, page()) + "\n\n"


def _draw(foreseen: "Foreseen", path: Path) -> None:
    from vramplan.allocator import replay
    from vramplan.predict.replayable import replayable
    from vramplan.report.report_file import write_whole
    from vramplan.report.timeline_plot import PICTURES

    prediction, timeline = foreseen
    played = replay(replayable(prediction.scenario, timeline)) if prediction.device == "cuda" else None
    budget = prediction.verdict.budget if prediction.verdict is not None else None
    title = f"{prediction.scenario.name} ({prediction.engine})"
    picture = PICTURES[path.suffix.lower()](timeline, title=title, replay=played, budget=budget)
    write_whole(path, picture.encode(), option="--timeline")
    print(f"wrote {path}", file=sys.stderr)


def _outlook(target: "Target", args: Namespace) -> "Outlook":
    """The data set under the target's one scenario."""
    from vramplan.commands.data_flags import outlook_of
    from vramplan.plan.limit import Limit

    scenario = target.single("a data set")
    if args.engine != "analytic":
        raise UsageError(f"--engine {args.engine} with a data set, which asks for many lengths", hint="drop --engine")
    _check_limit(scenario, args)
    judged = args.device == "cuda" and (scenario.gpu or args.budget)
    return outlook_of(args, scenario, Limit(args.budget, args.reserve) if judged else None, args.device)


_MERGE_ELSEWHERE = "merge on the CPU (--device cpu says how much memory that takes), or on a larger card"


def _before_verdict(prediction: "Prediction", outlook: "Outlook | None", args: Namespace) -> list[str]:
    """What the data set adds, and where to go when it does not fit."""
    from vramplan.commands.retyped import plan_command

    lines: list[str] = []
    if outlook:
        from vramplan.report.dataset_text import render_outlook

        lines += render_outlook(outlook, page())
    if prediction.verdict is not None and not prediction.verdict.fits:
        merges = prediction.scenario.method == "merge"  # which `plan` has nothing to vary in
        change = _MERGE_ELSEWHERE if merges else plan_command(args)
        lines += ["", *page().wrap(f"what to change: {change}", indent="  ")]
    return lines[1:] if lines and not lines[0] else lines


def _foresee(scenario: "Scenario", args: Namespace) -> "Foreseen":
    from vramplan.api import foresee

    _check_limit(scenario, args)
    return foresee(scenario, args.engine, device=args.device, budget=args.budget, reserve=args.reserve)


def _check_limit(scenario: "Scenario", args: Namespace) -> None:
    """Refuse a limit that makes no sense for the scenario."""
    if args.device == "cpu" and (args.budget or args.reserve):
        raise UsageError(
            "--budget and --reserve are of a card's memory, not of the CPU's", hint="leave out --device cpu"
        )
    check_reserve(args.reserve, scenario.gpu)


def _table(predictions: "Sequence[Prediction]") -> str:
    from vramplan.report.summary_text import render_summary

    return render_summary(predictions, page())


COMMAND = Command(
    name="predict",
    order=10,
    summary="predict the memory of a run, and whether it fits",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
