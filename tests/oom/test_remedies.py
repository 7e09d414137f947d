import pytest
from oom_samples import FULL, V22

from vramplan.oom.message import read_message
from vramplan.oom.remedies import Judgement, Remedy, fragmentation, remedies
from vramplan.oom.shortage import Shortage, of_message
from vramplan.units import GIB


def shortage(unallocated: str) -> Shortage:
    """0.98 GiB are lacking, of 20.57 GiB in tensors and so much in none."""
    return of_message(read_message([V22.replace("1.46 GiB", unallocated)]))


@pytest.mark.parametrize(
    ("unallocated", "replayed", "judgement"),
    [
        ("0.97 GiB", None, Judgement.NO),
        ("0.97 GiB", True, Judgement.NO),  # another run than the one that failed was replayed
        ("1.46 GiB", None, Judgement.PERHAPS),
        ("1.46 GiB", True, Judgement.YES),
        ("1.46 GiB", False, Judgement.NO),
        ("9.00 GiB", None, Judgement.YES),
        ("9.00 GiB", False, Judgement.NO),
    ],
)
def test_fragmentation_explains_no_more_than_what_was_in_no_tensor(
    unallocated: str, replayed: bool | None, judgement: Judgement
) -> None:
    assert fragmentation(shortage(unallocated), replayed) is judgement


@pytest.mark.parametrize(("needed", "enough", "judgement"), [(0, True, Judgement.YES), (9 * GIB, True, Judgement.NO)])
def test_a_remedy_is_for_the_request_and_for_what_the_run_needs_beyond_it(
    needed: int, enough: bool, judgement: Judgement
) -> None:
    limit = next(remedies(of_message(read_message([FULL])), needed, None, "VARIABLE"))
    assert (limit.name, limit.enough, limit.judgement) == ("limit", enough, judgement)


def test_a_label_says_what_and_how() -> None:
    (found,) = remedies(shortage("1.46 GiB"), GIB, None, "PYTORCH_ALLOC_CONF")
    assert found.label == "expandable segments (PYTORCH_ALLOC_CONF=expandable_segments:True before the start)"
    assert Remedy("name", "what", "", 1, enough=True, judgement=Judgement.YES).label == "what"
