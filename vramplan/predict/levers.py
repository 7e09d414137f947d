"""What would save most: each lever is a changed scenario, and its saving is the difference of two predictions."""

from collections.abc import Collection
from dataclasses import dataclass

from vramplan.errors import VramplanError
from vramplan.predict.changes import changes_but
from vramplan.predict.forecast import ledger
from vramplan.record import Prediction
from vramplan.scenario import Scenario

#: Changes of the table that are no levers: they shrink what is learned, by as much as one likes.
_SIZES = frozenset({"sequence", "targets", "rank", "adapters"})


@dataclass(frozen=True, slots=True)
class Lever:
    """A change that lowers the peak."""

    label: str
    """The change, as people say it."""
    scenario: Scenario
    """The changed scenario."""
    saves: int
    """Bytes of peak allocated that the change saves, by prediction."""


def levers(prediction: Prediction, n: int = 3, *, lacks: Collection[str] = ()) -> tuple[Lever, ...]:
    """The `n` changes to the predicted scenario that lower its peak on the prediction's device most, the biggest
    first; none of those that its trainer `lacks`."""
    scenario, device = prediction.scenario, prediction.device
    try:
        now = ledger(scenario, device).peak
    except VramplanError:  # predicted by the trace alone
        return ()
    found = []
    for change in changes_but({*_SIZES, *lacks}):
        variants = change.variants(scenario)
        if not variants:
            continue
        changed = variants[0]
        if device == "cpu" and changed.runs_liger:
            continue
        try:
            saves = now - ledger(changed, device).peak
        except VramplanError:  # the change leads out of what can be predicted
            continue
        if saves > 0:
            found.append(Lever(change.label(scenario, changed), changed, saves))
    return tuple(sorted(found, key=lambda lever: -lever.saves)[:n])
