"""`vramplan explain-oom`: why a run ran out of memory, and which change saves enough."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_json, add_path, add_scenario_flags, json_text, overrides, page
from vramplan.commands.origin import TARGET
from vramplan.errors import UsageError
from vramplan.files import user_path

if TYPE_CHECKING:
    from vramplan.oom.answer import Explanation
    from vramplan.scenario import Scenario

EXAMPLES = """\
  vramplan explain-oom train.log
  vramplan explain-oom train.log --scenario llama-3.1-8b --batch 2 --seq 4096
  vramplan explain-oom snapshot.pickle --scenario scenarios/my.yaml --json
  python train.py 2>&1 | vramplan explain-oom -

the file: a log or traceback with PyTorch's message (2.0 and later), or what torch.cuda.memory._dump_snapshot wrote;
nothing in it is executed. Exit code 1: a scenario is given, and no change that is known saves enough."""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(parser, "file", metavar="FILE", help="log with the error, memory snapshot (pickle), or - for stdin")
    add_path(parser, "--scenario", metavar="TARGET", help=f"what was run: {TARGET}")
    add_json(parser)
    add_scenario_flags(parser)


def run(args: Namespace) -> Answer:
    """The explanation; no when a scenario is given and nothing that is known saves enough."""
    from vramplan.report.oom_text import render_oom

    found = _explain(args, _scenario(args))
    return Answer(json_text(found.to_json()) if args.json else render_oom(found, page()), int(not found.solvable))


def _scenario(args: Namespace) -> "Scenario | None":
    from vramplan.commands.origin import resolve_aloud

    keys = overrides(args)
    if args.scenario is None:
        if keys:
            raise UsageError(
                f"the scenario's key '{next(iter(keys))}' is set, and no scenario is named",
                hint="add --scenario with a file or a model: --scenario llama-3.1-8b",
            )
        return None
    return resolve_aloud(args.scenario, keys).single("--scenario")


def _explain(args: Namespace, scenario: "Scenario | None") -> "Explanation":
    import sys

    from vramplan.oom.answer import explain_file, explain_path

    if args.file != "-":
        return explain_path(user_path(args.file), scenario)
    if sys.stdin is None:
        raise UsageError("stdin is closed", hint="pipe a log into it, or name a file")
    return explain_file(sys.stdin.buffer, "stdin", scenario)


COMMAND = Command(
    name="explain-oom",
    order=25,
    summary="explain an out-of-memory error, and find the change that saves enough",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
