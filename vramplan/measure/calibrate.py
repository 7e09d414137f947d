"""A calibration from a measured run: what the process held on the card that was no tensor. No torch."""

from vramplan.catalog.calibration import Calibration
from vramplan.catalog.gpus import gpu_of_driver
from vramplan.errors import CannotRun
from vramplan.record import Outcome, Record


def calibration_of(record: Record) -> tuple[str, Calibration]:
    """The catalogue's name of the record's card, and what the record says about its context and workspaces."""
    if record.outcome is not Outcome.OK:
        raise CannotRun(f"the calibration run ended with {record.outcome.value}: {record.note}", hint="try again")
    facts = record.environment
    name = gpu_of_driver(facts["gpu"])
    if not name:
        raise CannotRun(
            f"the catalogue has no card '{facts['gpu']}'", hint="`vramplan list gpus` shows those that it has"
        )
    made = Calibration(
        gpu=facts["gpu"],
        context=record.context,
        workspaces=facts["workspaces"],
        driver=facts["driver"],
        torch=record.libraries["torch"],
        date=facts["date"][:10],
    )
    return name, made
