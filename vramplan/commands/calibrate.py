"""`vramplan calibrate`: what a GPU takes beside the tensors, measured here or read from records."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_path
from vramplan.errors import UsageError
from vramplan.files import user_path

if TYPE_CHECKING:
    from vramplan.record import Record

EXAMPLES = """\
  vramplan calibrate
  vramplan calibrate --from-records reports/records/h200"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(
        parser,
        "--from-records",
        metavar="DIR",
        type=user_path,
        help="measure nothing: write what the records of a directory (or one file) say into the catalogue that ships",
    )
    add_path(
        parser,
        "--catalog",
        metavar="FILE",
        type=user_path,
        help="with --from-records: the catalogue (default: this package's own)",
    )


def run(args: Namespace) -> Answer:
    """Keep the context and the workspaces of a card, which its predictions then use."""
    if args.from_records is not None:
        return _from_records(args.from_records, args.catalog)
    if args.catalog is not None:
        raise UsageError("--catalog without --from-records", hint="a card measured here is kept for this user alone")
    return _measured()


def _measured() -> Answer:
    from vramplan.catalog.calibration import check_calibration_place, save_calibration
    from vramplan.measure.calibrate import calibration_of
    from vramplan.measure.run import measure
    from vramplan.report.progress import say
    from vramplan.targets import resolve
    from vramplan.units import human

    check_calibration_place()
    record = measure(resolve("quickstart").single("calibrate"), device="cuda", steps=1, progress=say)
    name, made = calibration_of(record)
    file = save_calibration(name, made)
    return Answer(
        f"{made.gpu}: context {human(made.context)}, cuBLAS workspaces {human(made.workspaces)}\n"
        f"kept in {file}: predictions for --gpu {name} use it"
    )


def _from_records(directory: Path, catalog: Path | None) -> Answer:
    from vramplan.catalog.gpus import ship_context
    from vramplan.measure.calibrate import recorded
    from vramplan.units import human

    cards = recorded(_records(directory))
    if not cards:
        raise UsageError(
            f"{directory} has no record that says what a card of the catalogue holds beside tensors",
            hint="training runs of `vramplan measure --device cuda` do, with optimizers that page nothing",
        )
    lines = []
    for card in cards:
        file = ship_context(
            card.name, context=card.context, workspaces=card.workspaces, record=card.origin, catalog=catalog
        )
        sizes = f"context {human(card.context)}, cuBLAS workspaces {human(card.workspaces)}"
        lines.append(f"{card.name}: {sizes} ({card.origin})")
    return Answer("\n".join([*lines, f"written into {file}"]))


def _records(directory: Path) -> "Iterator[Record]":
    """The records of a file or below a directory; whatever else is there is passed over."""
    from vramplan.check.items import read_file, result_files
    from vramplan.record import Record

    if not directory.exists():
        raise UsageError(f"{directory} does not exist", hint="records are written by `vramplan measure --out`")
    for file in result_files(directory):
        try:
            items = read_file(file)
        except UsageError:
            if file == directory:
                raise
            continue
        yield from (item.result for item in items if isinstance(item.result, Record))


COMMAND = Command(
    name="calibrate",
    order=75,
    summary="measure the CUDA context of this machine's GPU, for its predictions",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
