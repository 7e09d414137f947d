"""What the machine's memory does not hold is not begun."""

from pathlib import Path

import pytest

from vramplan.errors import CannotRun
from vramplan.measure.host import available, check_host
from vramplan.predict.forecast import ledger
from vramplan.scenario import Scenario

RUN = Scenario.load("qwen2.5-0.5b", seq=64)


def test_available_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       24000000 kB\nMemAvailable:    1000 kB\n")
    assert available(file) == 1000 * 1024
    assert available(tmp_path / "missing") is None


def test_a_run_that_needs_more_than_there_is_is_refused() -> None:
    needs = ledger(RUN, "cpu").peak
    check_host(RUN, free=needs)
    check_host(RUN, free=None)
    with pytest.raises(CannotRun, match="GiB of main memory"):
        check_host(RUN, free=needs - 1)
