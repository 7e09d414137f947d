"""`vramplan compare`: two results side by side, one beside its own prediction, or the errors over a directory."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_device, add_json, add_path, add_scenario_flags, json_text, overrides, page
from vramplan.commands.origin import TARGET
from vramplan.errors import UsageError
from vramplan.files import read_object, user_path

if TYPE_CHECKING:
    from vramplan.compare import Comparison
    from vramplan.record import Device, Result
    from vramplan.scenario import Scenario

EXAMPLES = """\
  vramplan compare scenarios/quickstart.yaml quickstart.json
  vramplan compare quickstart.json
  vramplan compare reports/ --markdown
  vramplan compare llama-2-7b --engines --gpu rtx3090"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(
        parser,
        "sides",
        metavar="A [B]",
        nargs="+",
        help=f"records and predictions (JSON), or what is to be predicted: {TARGET}; one record alone is compared with "
        "the prediction of its own scenario, and so is each of one directory",
    )
    parser.add_argument("--engines", action="store_true", help="compare the two engines on one scenario")
    add_device(parser, None, "whose memory is meant when both sides are predicted: cuda (default) or cpu")
    shown = parser.add_mutually_exclusive_group()
    add_json(shown)
    shown.add_argument("--markdown", action="store_true", help="print a Markdown table")
    add_scenario_flags(parser)


def run(args: Namespace) -> Answer:
    """Compare; the answer is the table, never a judgement."""
    sides: list[str] = args.sides
    if args.engines:
        return _shown(_engines(sides, args), args)
    if len(sides) == 1 and (directory := user_path(sides[0])).is_dir():
        _refuse_flags(args, "each record is compared with its own scenario")
        return _errors(directory, args)
    from vramplan.api import compare, predict
    from vramplan.record import Result

    a, b = _pair(sides, args)
    if args.device and not isinstance(a, Result) and not isinstance(b, Result):
        a, b = predict(a, device=args.device), predict(b, device=args.device)
    return _shown(compare(a, b), args)


def _pair(sides: list[str], args: Namespace) -> "tuple[Result | Scenario, Result | Scenario]":
    """Both sides; beside one result alone stands what is predicted of its scenario."""
    from vramplan.record import Result

    found = [_side(side, args) for side in sides] if len(sides) < 3 else []
    if found and all(isinstance(side, Result) for side in found):
        _refuse_flags(args, "both sides are results already" if len(found) > 1 else "its own scenario is predicted")
    match found:
        case [Result() as alone]:
            return alone.scenario, alone
        case [a, b]:
            return a, b
    raise UsageError(
        f"compare takes two sides, one record or one directory of records, not {len(sides)}: {' '.join(sides)}",
        hint="`vramplan compare A B`, `compare RECORD`, `compare DIR` or `compare SCENARIO --engines`",
    )


def _refuse_flags(args: Namespace, why: str) -> None:
    """Flags change what is still to be predicted."""
    for key in overrides(args):
        raise UsageError(f"'{key}' cannot be set: {why}", hint="leave it out, or compare with a scenario")


def _side(text: str, args: Namespace) -> "Result | Scenario":
    """A record or prediction when `text` is a .json file that holds one, otherwise a scenario."""
    from vramplan.commands.origin import resolve_aloud
    from vramplan.targets import is_result_file

    path = user_path(text)
    if is_result_file(path):
        from vramplan.record import result_from_json

        body = read_object(path, hint="give a record, a prediction (of a matrix one), or what is to be predicted")
        if not ("model" in body or "model_type" in body):
            return result_from_json(body, source=str(path))
    return resolve_aloud(text, overrides(args)).single("compare")


def _engines(sides: list[str], args: Namespace) -> "Comparison":
    from vramplan.api import compare, predict
    from vramplan.commands.origin import resolve_aloud

    if len(sides) != 1:
        raise UsageError(f"--engines takes one scenario, not {len(sides)}", hint="vramplan compare SCENARIO --engines")
    scenario = resolve_aloud(sides[0], overrides(args)).single("compare --engines")
    device: Device = args.device or "cuda"
    return compare(predict(scenario, "analytic", device=device), predict(scenario, "trace", device=device))


def _shown(comparison: "Comparison", args: Namespace) -> Answer:
    if args.json:
        return Answer(json_text(comparison.to_json()))
    if args.markdown:
        from vramplan.report.markdown import comparison_markdown

        return Answer(comparison_markdown(comparison))
    from vramplan.report.comparison import render_comparison

    return Answer(render_comparison(comparison, page()))


def _errors(directory: Path, args: Namespace) -> Answer:
    from vramplan.api import predict
    from vramplan.error_table import error_table

    errors = error_table(directory, lambda scenario, device: predict(scenario, device=device))
    if args.json:
        return Answer(json_text(errors.to_json()))
    if args.markdown:
        from vramplan.report.markdown import errors_markdown

        return Answer(errors_markdown(errors))
    from vramplan.report.comparison import render_errors

    return Answer(render_errors(errors, page()))


COMMAND = Command(
    name="compare",
    order=30,
    summary="compare predictions, records and scenarios, byte by byte",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
