"""`vramplan doctor`: what works on this machine."""

from argparse import ArgumentParser, Namespace

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_json, json_text

EXAMPLES = "  vramplan doctor"


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_json(parser)


def run(args: Namespace) -> Answer:
    """The libraries, the GPU, and which commands they allow."""
    from vramplan.doctor import diagnose
    from vramplan.report.doctor_text import render_diagnosis

    diagnosis = diagnose()
    return Answer(json_text(diagnosis.to_json()) if args.json else render_diagnosis(diagnosis))


COMMAND = Command(
    name="doctor",
    order=70,
    summary="show what works on this machine, and what is missing",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
