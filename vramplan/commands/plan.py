"""`vramplan plan`: what fits on a card, and what to change."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.card_flags import add_limit_flags, check_reserve
from vramplan.commands.data_flags import add_data_flags, asks_for_data
from vramplan.commands.flags import (
    add_choice,
    add_json,
    add_path,
    add_scenario_flags,
    json_text,
    overrides,
    page,
    writable,
)
from vramplan.commands.origin import TARGET
from vramplan.errors import UsageError

if TYPE_CHECKING:
    from vramplan.dataset.outlook import Outlook
    from vramplan.plan.limit import Limit
    from vramplan.scenario import Scenario
    from vramplan.targets import Target

EXAMPLES = """\
  vramplan plan llama-3.1-8b --gpu rtx4090
  vramplan plan scenarios/my.yaml --budget 16GiB --write fits.yaml
  vramplan plan llama-2-7b --gpu t4 --goal max-rank --seq 1024
  vramplan plan llama-3.1-8b --gpu rtx4090 --batch 4 --data train.jsonl --tokenizer ./my-model
  vramplan plan llama-3.2-1b llama-2-7b llama-2-70b --gpu t4,rtx4090,a100-80gb"""
GOALS = ("max-tokens", "max-seq", "max-batch", "max-rank", "max-model", "cheapest-gpu")
_GPU = "key:gpu"


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(parser, "targets", metavar="TARGET", nargs="+", help=f"{TARGET}; several")
    add_limit_flags(parser)
    add_choice(
        parser,
        "--goal",
        GOALS,
        metavar="GOAL",
        help=f"what is to be as large as it gets: {', '.join(GOALS)}; max-tokens, the default, shows the frontier",
    )
    parser.add_argument("--seqs", type=_lengths, metavar="N,N", help="sequence lengths that a matrix tries")
    add_path(parser, "--write", type=writable("--write"), metavar="FILE", help="save the fitting scenario there")
    parser.add_argument("--force", action="store_true", help="let --write replace a file")
    add_json(parser)
    add_data_flags(parser)
    add_scenario_flags(parser)
    # Here a card may be named more than once: the scenario's own flag gives way.
    parser.conflict_handler = "resolve"
    parser.add_argument_group("cards").add_argument(
        "--gpu", dest=_GPU, action="append", metavar="NAME,NAME", help="card or cards, see `vramplan list gpus`"
    )


def run(args: Namespace) -> Answer:
    """The plan of one scenario, or the matrix of several scenarios or cards; no when nothing fits."""
    from vramplan.commands.origin import resolve_aloud
    from vramplan.plan.limit import Limit

    cards = _cards(args)
    if cards and args.goal == "cheapest-gpu":
        raise UsageError(
            f"--gpu {','.join(cards)} with --goal cheapest-gpu", hint="it looks at every card: leave --gpu out"
        )
    setattr(args, _GPU, cards[0] if len(cards) == 1 else None)
    keys = overrides(args)
    targets = [resolve_aloud(target, keys) for target in args.targets]
    scenarios = [scenario for target in targets for scenario in target.scenarios]
    for scenario in scenarios:
        if scenario.method == "merge":
            raise UsageError(
                f"{scenario.name}: a merge has no batch to plan", hint="`vramplan predict` says what it takes"
            )
    for card in cards or [scenario.gpu for scenario in scenarios]:
        if card or args.goal != "cheapest-gpu":  # which looks at every card of the catalogue
            check_reserve(args.reserve, card)
    limit = Limit(args.budget, args.reserve)
    if len(scenarios) == 1 and len(cards) < 2:
        return _plan(targets[0], limit, args)
    return _matrix(scenarios, cards, limit, args)


def _plan(target: "Target", limit: "Limit", args: Namespace) -> Answer:
    from vramplan.commands.origin import plan_with_origin
    from vramplan.plan.answer import plan
    from vramplan.plan.goals import Goal
    from vramplan.report.plan_text import render_plan, render_proposed
    from vramplan.report.progress import waiting

    _refuse(args, "seqs", "belongs to a matrix; this is one scenario on one card", "give several TARGETs, or --gpu a,b")
    if args.write and args.write.exists() and not args.force:
        raise UsageError(f"--write: {args.write} exists", hint="name another file, or add --force to replace it")
    (scenario,) = target.scenarios
    outlook = _outlook(scenario, limit, args) if asks_for_data(args) else None
    with waiting("looking for what fits"):
        goal = Goal(args.goal or Goal.MAX_TOKENS)
        answer = plan(outlook.planned if outlook else scenario, limit, goal, lacks=target.lacks)
    answer = plan_with_origin(answer, target)
    if args.write and answer.proposed:
        _write(answer.proposed, args.write)
        print(f"wrote {args.write}: {render_proposed(answer)}", file=sys.stderr)
    elif args.write:
        print(f"wrote nothing: no scenario for {args.write} fits", file=sys.stderr)
    if args.json:
        from vramplan.dataset.outlook_json import outlook_json

        more = {"dataset": outlook_json(outlook, answer.rows)} if outlook else {}
        return Answer(json_text(answer.to_json() | more), int(not answer.feasible))
    from vramplan.report.dataset_text import render_outlook

    lines = render_outlook(outlook, page(), frontier=answer.rows) if outlook else ()
    return Answer(render_plan(answer, page(), before_verdict=lines), int(not answer.feasible))


def _outlook(scenario: "Scenario", limit: "Limit", args: Namespace) -> "Outlook":
    """The data set under the scenario, on the card; without a card its batches are judged by nothing."""
    from vramplan.commands.data_flags import outlook_of

    return outlook_of(args, scenario, limit if scenario.gpu or limit.budget is not None else None, "cuda")


def _matrix(scenarios: "list[Scenario]", cards: list[str], limit: "Limit", args: Namespace) -> Answer:
    from vramplan.plan.matrix import SEQS, matrix
    from vramplan.report.plan_text import render_matrix
    from vramplan.report.progress import waiting

    for option in ("goal", "write", "data", "lengths"):
        _refuse(args, option, "belongs to one scenario on one card", "give one TARGET and one --gpu")
    asks_for_data(args)
    if cards and limit.budget is not None:
        raise UsageError("--budget with several scenarios or cards", hint="the cards' own capacities are compared")
    with waiting("looking for what fits"):
        found = matrix(scenarios, cards or _own_cards(scenarios), args.seqs or SEQS, limit)
    text = json_text(found.to_json()) if args.json else render_matrix(found, page())
    return Answer(text, int(not any(cell.fits for cells in found.cells for cell in cells)))


def _refuse(args: Namespace, option: str, why: str, hint: str) -> None:
    if getattr(args, option):
        raise UsageError(f"--{option} {why}", hint=hint)


def _own_cards(scenarios: "list[Scenario]") -> list[str]:
    """The cards that the scenarios name, each once."""
    cards = list(dict.fromkeys(scenario.gpu for scenario in scenarios if scenario.gpu))
    if not cards:
        raise UsageError("several scenarios and no card", hint="name cards: --gpu rtx4090,a100-80gb, or --gpu all")
    return cards


def _cards(args: Namespace) -> list[str]:
    """The cards that were named, in the catalogue's spelling; `all` is every card of it."""
    from vramplan.catalog.gpus import check_gpu, gpu_names

    words = [word.strip() for given in getattr(args, _GPU) or () for word in given.split(",")]
    if words == ["all"]:
        return list(gpu_names())
    return list(dict.fromkeys(check_gpu(word) for word in words))


def _lengths(text: str) -> tuple[int, ...]:
    """An argparse `type`: sequence lengths with commas between them."""
    from vramplan.scenario_schema import LARGEST_COUNT

    words = text.split(",")
    if not all(word.strip().isdecimal() and 1 <= int(word.strip()[:9]) <= LARGEST_COUNT for word in words):
        raise UsageError(f"--seqs: '{text}' are not sequence lengths", hint="such as --seqs 512,2048,8192")
    return tuple(sorted({int(word) for word in words}))


def _write(scenario: "Scenario", file: Path) -> None:
    """The scenario's file, whole or not at all."""
    from vramplan.report.report_file import write_whole
    from vramplan.scenario_file import scenario_yaml

    write_whole(file, scenario_yaml(scenario).encode(), option="--write")


COMMAND = Command(
    name="plan",
    order=15,
    summary="find what fits on a card, and what to change so that it does",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
