"""`vramplan predict`: what a run will need."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import (
    add_device,
    add_json,
    add_scenario_flags,
    json_text,
    one_of,
    overrides,
    page,
    size,
)
from vramplan.errors import UsageError

if TYPE_CHECKING:
    from vramplan.record import Prediction
    from vramplan.scenario import Scenario

EXAMPLES = """\
  vramplan predict llama-2-7b --gpu rtx3090 --batch 4 --seq 512
  vramplan predict scenarios/quickstart.yaml --no-double-quant --json
  vramplan predict ./my-model --set lora.targets=[q_proj,v_proj] --budget 24GiB"""
ENGINES = ("analytic", "trace")


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("target", metavar="TARGET", help="scenario file or name, model, hub id, directory, config.json")
    parser.add_argument(
        "--engine",
        type=one_of("--engine", ENGINES),
        choices=ENGINES,
        metavar="ENGINE",
        default="analytic",
        help="analytic (closed form, the default) or trace (the real libraries on fake tensors)",
    )
    add_device(parser, "cuda", "whose memory is meant: cuda (default) or cpu")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--budget", type=size("--budget"), metavar="SIZE", help="what the process may hold, e.g. 24GiB")
    limit.add_argument(
        "--reserve", type=size("--reserve"), metavar="SIZE", default=0, help="part of the card's capacity to leave free"
    )
    add_json(parser)
    add_scenario_flags(parser)


def run(args: Namespace) -> Answer:
    """Predict every scenario of the target; no when any of them does not fit."""
    from vramplan.targets import resolve

    target = resolve(args.target, overrides(args))
    predictions = [_predict(scenario, args) for scenario in target.scenarios]
    code = int(any(p.verdict is not None and not p.verdict.fits for p in predictions))
    if args.json:
        bodies = [prediction.to_json() for prediction in predictions]
        return Answer(json_text(bodies if target.is_matrix else bodies[0]), code)
    return Answer(_table(predictions) if target.is_matrix else _detailed(predictions[0]), code)


def _predict(scenario: "Scenario", args: Namespace) -> "Prediction":
    from vramplan.api import predict
    from vramplan.catalog.gpus import gpu
    from vramplan.units import human

    if args.device == "cpu" and (args.budget or args.reserve):
        raise UsageError(
            "--budget and --reserve are of a card's memory, not of the CPU's", hint="leave out --device cpu"
        )
    if args.reserve and not scenario.gpu:
        raise UsageError(
            "--reserve leaves a part of a card free, and no card is named", hint="add --gpu, or use --budget"
        )
    if args.reserve:
        capacity = gpu(scenario.gpu).capacity
        if args.reserve >= capacity:
            raise UsageError(
                f"--reserve: {human(args.reserve)} leaves nothing of {scenario.gpu}", hint=f"it has {human(capacity)}"
            )
    return predict(scenario, args.engine, device=args.device, budget=args.budget, reserve=args.reserve)


def _table(predictions: "list[Prediction]") -> str:
    from vramplan.report.terminal import render_summary

    return render_summary(predictions, page())


def _detailed(prediction: "Prediction") -> str:
    from vramplan.predict.levers import biggest_levers
    from vramplan.report.terminal import render_prediction

    return render_prediction(prediction, page(), levers=biggest_levers(prediction))


COMMAND = Command(
    name="predict",
    order=10,
    summary="predict the memory of a run, and whether it fits",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
