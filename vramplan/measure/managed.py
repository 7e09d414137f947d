"""Paged optimizers take managed memory, which may never be more than the card has free: refuse before running."""

from vramplan.allocator import replay
from vramplan.errors import CannotRun
from vramplan.optimizers import optimizer, unpaged
from vramplan.predict.forecast import forecast
from vramplan.scenario import Scenario
from vramplan.units import GIB, human

#: What stays free beside the run. A choice: the context (up to some 0.6 GiB on the largest cards) and kernels loaded
#: late are not in the forecast.
MARGIN = 2 * GIB


def check_managed(scenario: Scenario, *, free: int, memory_limit: int | None = None) -> None:
    """Refuse a run whose paged optimizer states and tensors together are forecast not to fit into `free` bytes.

    Managed memory beyond what is free moves pages to and fro, and can hang the GPU for everybody on it.
    """
    if not scenario.method.trains or not optimizer(scenario.optimizer).paged:
        return
    run = forecast(scenario, "cuda")
    if not run.managed:
        return
    reserved = replay(run.program()).reserved
    if memory_limit is not None:
        reserved = min(reserved, memory_limit)
    needs = reserved + run.managed + MARGIN
    if needs > free:
        raise CannotRun(
            f"{scenario.optimizer}: {human(run.managed)} of managed memory and {human(reserved)} of tensors, with a "
            f"margin of {human(MARGIN)}, are more than the {human(free)} that are free; oversubscribed managed memory "
            "can hang a GPU",
            hint=f"use {unpaged(scenario.optimizer)[0]}, a smaller batch, or a larger card",
        )
