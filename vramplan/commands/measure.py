"""`vramplan measure`: what a run really takes."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import (
    add_device,
    add_json,
    add_path,
    add_scenario_flags,
    count,
    json_text,
    overrides,
    page,
    size,
)
from vramplan.commands.origin import TARGET
from vramplan.errors import UsageError
from vramplan.files import user_path

if TYPE_CHECKING:
    from vramplan.record import Record

EXAMPLES = """\
  vramplan measure scenarios/quickstart.yaml --device cpu --out quickstart.json
  vramplan measure scenarios/a.yaml scenarios/b.yaml --device cuda --out reports/"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(parser, "targets", metavar="TARGET", nargs="+", help=f"{TARGET}; several")
    add_device(parser, "cpu", "where the steps run: cpu (default) or cuda")
    parser.add_argument("--steps", type=count("--steps"), metavar="N", default=3, help="training steps (default 3)")
    parser.add_argument("--timeout", type=count("--timeout"), metavar="S", help="seconds after which the run is ended")
    parser.add_argument(
        "--memory-limit",
        type=size("--memory-limit"),
        metavar="SIZE",
        help="what PyTorch's allocator may reserve on the GPU, as on a smaller card (its context not counted)",
    )
    add_path(
        parser, "--out", type=user_path, metavar="FILE|DIR", help="write the record there; a directory for several"
    )
    add_json(parser)
    add_scenario_flags(parser)


def run(args: Namespace) -> Answer:
    """Measure every scenario of every target, one after the other; no when any run did not end well."""
    from vramplan.api import measure
    from vramplan.commands.origin import resolve_aloud
    from vramplan.record import Outcome
    from vramplan.report.progress import progress

    targets = [resolve_aloud(target, overrides(args)) for target in args.targets]
    scenarios = [scenario for target in targets for scenario in target.scenarios]
    files = record_files(args.out, [scenario.name for scenario in scenarios])
    _check_out(args.out, files)
    records: list[Record] = []
    for scenario, file in zip(scenarios, files, strict=True):
        with progress(f"measuring {scenario.name} on {args.device} ...") as tell:
            record = measure(
                scenario,
                args.device,
                steps=args.steps,
                timeout=args.timeout,
                memory_limit=args.memory_limit,
                progress=tell,
            )
        _save(record, file)
        records.append(record)
    code = int(any(record.outcome is not Outcome.OK for record in records))
    if args.json:
        bodies = [record.to_json() for record in records]
        listed = len(targets) > 1 or targets[0].is_matrix
        return Answer(json_text(bodies if listed else bodies[0]), code)
    from vramplan.report.terminal import render_record

    return Answer("\n\n".join(render_record(record, page()) for record in records), code)


def record_files(out: Path | None, names: list[str]) -> list[Path | None]:
    """Where each record goes: the file that was named, or one file per scenario in the directory that was named."""
    if out is None:
        return [None] * len(names)
    into_directory = len(names) > 1 or out.is_dir() or out.suffix != ".json"
    if not into_directory:
        return [out]
    if out.is_file():
        raise UsageError(f"--out: {out} is a file, and there is more than one record", hint="name a directory")
    files: list[Path | None] = [out / f"{name.replace('/', '-')}.json" for name in names]
    if len(set(files)) < len(files):
        raise UsageError("--out: two scenarios have the same name", hint="give each scenario file a `name` of its own")
    return files


def _check_out(out: Path | None, files: list[Path | None]) -> None:
    """Refuse a place that cannot be written before minutes are spent on what would go there."""
    from vramplan.report.report_file import check_directory, check_place

    if out is None:
        return
    if out in files:
        check_place(out, option="--out")
    else:
        check_directory(out, option="--out")


def _save(record: "Record", file: Path | None) -> None:
    if file is None:
        return
    from vramplan.record import save_result

    try:
        save_result(record, file)
    except OSError as error:
        raise UsageError(
            f"--out: cannot write {file}: {error.strerror}", hint="name a place that you may write"
        ) from error
    print(f"wrote {file}", file=sys.stderr)


COMMAND = Command(
    name="measure",
    order=20,
    summary="run real training steps and measure their memory",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
