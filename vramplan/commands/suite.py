"""`vramplan suite`: many measurements in an order, resumable."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_device, add_path, count
from vramplan.errors import UsageError, VramplanError
from vramplan.files import user_path

if TYPE_CHECKING:
    from vramplan.measure.suite import Run
    from vramplan.record import Record

EXAMPLES = """\
  vramplan suite --dry-run
  vramplan suite --chunk 1 --device cuda --out reports/records/h200"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(parser, "directory", metavar="DIR", nargs="?", type=user_path, help="default: the shipped scenarios/gpu")
    parser.add_argument("--chunk", type=count("--chunk"), metavar="N", help="only this chunk")
    add_path(parser, "--out", type=user_path, metavar="DIR", help="default reports/records/ and the card's name")
    parser.add_argument("--gpu", metavar="NAME", default="", help="card that is predicted (default: this machine's)")
    add_device(parser, "cuda", "where the steps run: cuda (default) or cpu")
    parser.add_argument("--steps", type=count("--steps"), metavar="N", default=3, help="timed steps (default 3)")
    parser.add_argument("--timeout", type=count("--timeout"), metavar="S", default=300, help="per run (default 300)")
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and for how long")


def run(args: Namespace) -> Answer:
    """Measure what has no fresh record yet; no when a run did not end as predicted."""
    from vramplan.catalog.gpus import check_gpu, gpu_of_driver
    from vramplan.measure.environment import installed_torch, require_libraries
    from vramplan.measure.nvml import card
    from vramplan.measure.suite import chunk, read_suite, run_suite
    from vramplan.report.progress import say
    from vramplan.targets import SHIPPED

    if not args.dry_run:
        require_libraries()
    on_card = args.device == "cuda" and not args.dry_run
    title, torch = (card().name, installed_torch()) if on_card else ("", "")
    named = check_gpu(args.gpu) if args.gpu else gpu_of_driver(title)
    runs = chunk(read_suite(args.directory or SHIPPED / "gpu", gpu=named, torch=torch), args.chunk)
    if args.device == "cpu":  # which has no allocator that could be limited
        runs = tuple(replace(run, share=None) for run in runs)
    if args.dry_run:
        from vramplan.report.suite_text import render_plan

        return Answer(render_plan(runs, args.steps, args.device))
    out = args.out or Path("reports/records", named or args.device)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out: {out} is not a directory", hint="every run gets a file of its own there")
    results = tuple(run_suite(runs, out, lambda run: _measured(run, args), device=args.device, gpu=title, progress=say))
    from vramplan.report.suite_text import render_results

    return Answer(render_results(results), int(not all(result.as_expected for result in results)))


def _measured(run: "Run", args: Namespace) -> "Record":
    """One run; what this machine refuses to run is an error in its record, and the suite goes on."""
    from vramplan.measure.environment import environment
    from vramplan.measure.run import failed, measure
    from vramplan.record import Outcome
    from vramplan.report.progress import say

    try:
        return measure(
            run.scenario,
            device=args.device,
            steps=args.steps,
            timeout=args.timeout,
            memory_limit=run.memory_limit if args.device == "cuda" else None,
            progress=say,
        )
    except VramplanError as error:
        return failed(run.scenario, args.device, environment(args.device), Outcome.ERROR, error.message)


COMMAND = Command(
    name="suite",
    order=25,
    summary="measure a suite of scenarios in its order, resumable",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
