from plans import held, small_scenario

from vramplan.oom.aim import Aim
from vramplan.plan.limit import Limit, Probe
from vramplan.predict.forecast import ledger
from vramplan.record import Fit

RUN = small_scenario(batch=4, seq=512)
SHORTER = small_scenario(batch=4, seq=256)


def test_what_fits_is_not_enough_where_its_tensors_take_too_much() -> None:
    limit = Limit(2 * held(RUN))
    assert Probe(limit).fits(RUN)
    most = ledger(RUN).peak
    for aim, enough in ((Aim(limit, most=most), True), (Aim(limit, most=most - 1), False)):
        assert (aim.fits(RUN), aim.fits(RUN, Fit.FITS), aim.verdict(RUN).fits) == (enough, enough, enough)
        assert aim.fits(SHORTER)
        assert aim.verdict(RUN).needed == Probe(limit).verdict(RUN).needed


def test_what_takes_little_enough_has_to_fit_too() -> None:
    assert not Aim(Limit(ledger(RUN).peak), most=ledger(RUN).peak).fits(RUN)
