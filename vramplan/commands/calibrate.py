"""`vramplan calibrate`: what this machine's own GPU takes beside the tensors."""

import sys
from argparse import ArgumentParser, Namespace

from vramplan.commands import Answer, Command

EXAMPLES = "  vramplan calibrate"


def configure(parser: ArgumentParser) -> None:
    """No arguments."""


def run(args: Namespace) -> Answer:
    """Measure a small run on the GPU and keep its context, which predictions for the same card then use."""
    from vramplan.catalog.calibration import save_calibration
    from vramplan.measure.calibrate import calibration_of
    from vramplan.measure.run import measure
    from vramplan.targets import resolve
    from vramplan.units import human

    record = measure(
        resolve("quickstart").single("calibrate"),
        device="cuda",
        steps=1,
        progress=lambda text: print(text, file=sys.stderr, flush=True),
    )
    name, made = calibration_of(record)
    file = save_calibration(name, made)
    return Answer(
        f"{made.gpu}: context {human(made.context)}, cuBLAS workspaces {human(made.workspaces)}\n"
        f"kept in {file}: predictions for --gpu {name} use it"
    )


COMMAND = Command(
    name="calibrate",
    order=75,
    summary="measure the CUDA context of this machine's GPU, for its predictions",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
