from dataclasses import replace

import msgspec
from samples import NO_FIT, ON_CPU, PREDICTION, TINY, check_golden

from vramplan.record import Prediction
from vramplan.report.layout import Page, visible
from vramplan.report.summary_text import render_summary


def test_a_matrix_is_one_line_per_scenario() -> None:
    check_golden("summary.txt", render_summary([PREDICTION, NO_FIT], Page()))
    check_golden("summary-cpu.txt", render_summary([ON_CPU, TINY], Page()))


def test_a_matrix_says_each_warning_once_and_of_whom() -> None:
    def told(name: str, *warnings: str) -> Prediction:
        return replace(PREDICTION, scenario=msgspec.structs.replace(PREDICTION.scenario, name=name), warnings=warnings)

    text = render_summary([told("a", "stops"), told("b", "stops", "slow"), told("c"), told("d")], Page())
    assert text.splitlines()[-5:] == ["", "warning: a, b: stops", "warning: b: slow", "", "4 of 4 fit"]
    text = render_summary([told(name, "stops") for name in "abcde"], Page())
    assert text.splitlines()[-3:] == ["warning: 5 of 5 scenarios: stops", "", "5 of 5 fit"]


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    named = replace(
        PREDICTION, scenario=msgspec.structs.replace(PREDICTION.scenario, name="a-scenario-with-a-long-name")
    )
    widths = {66: "scenario GiB allocated device verdict", 80: "scenario peaks in GiB allocated device verdict"}
    for width, head in widths.items():
        lines = render_summary([named, NO_FIT], Page(width)).splitlines()
        assert (lines[0].split(), max(map(visible, lines)) <= width) == (head.split(), True)
