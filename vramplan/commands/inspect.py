"""`vramplan inspect`: what a model consists of, what is quantised and why, and what each choice of adapters costs."""

from argparse import ArgumentParser, Namespace

from vramplan.commands import Answer, Command
from vramplan.commands.card_flags import add_limit_flags, check_reserve
from vramplan.commands.flags import add_json, add_path, add_scenario_flags, count, json_text, overrides, page, size
from vramplan.commands.origin import TARGET

EXAMPLES = """\
  vramplan inspect llama-2-7b
  vramplan inspect llama-2-7b --gpu rtx3090 --targets q_proj,v_proj --rank 64
  vramplan inspect mixtral-8x7b-v0.1 --ranks 8,64 --json
  vramplan inspect llama-2-7b --optimizer paged_adamw_8bit --budget 8GiB
  vramplan inspect llama-3.1-70b --gpu rtx4090 --host-memory 32GiB"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(parser, "target", metavar="TARGET", help=TARGET)
    parser.add_argument(
        "--ranks", type=_ranks, metavar="N,N", help="ranks to compare (default: --rank if given, else 8,16,32,64)"
    )
    add_limit_flags(parser)
    parser.add_argument(
        "--host-memory",
        type=size("--host-memory"),
        metavar="SIZE",
        help='main memory that device_map="auto" may use (default: enough)',
    )
    add_json(parser)
    add_scenario_flags(parser)


def _ranks(text: str) -> tuple[int, ...]:
    check = count("--ranks")
    return tuple(dict.fromkeys(check(word.strip()) for word in text.split(",")))


def run(args: Namespace) -> Answer:
    """Take the scenario's model apart."""
    from vramplan.commands.origin import resolve_aloud
    from vramplan.inventory.choices import RANKS
    from vramplan.inventory.inspection import inspect

    given = overrides(args)
    scenario = resolve_aloud(args.target, given).single("inspect")
    check_reserve(args.reserve, scenario.gpu)
    asked = (scenario.lora.rank,) if "lora.rank" in given else RANKS
    ranks = args.ranks or tuple(sorted({*asked, scenario.lora.rank}))
    found = inspect(scenario, ranks, budget=args.budget, reserve=args.reserve, host=args.host_memory)
    if args.json:
        return Answer(json_text(found.to_json()))
    from vramplan.report.inspect_text import render_inspection

    return Answer(render_inspection(found, page()))


COMMAND = Command(
    name="inspect",
    order=12,
    summary="list a model's layers: what is quantised and why, what adapters and optimizer states cost",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
