"""Formats compared as text, whole. Errors are made by hand: what a library measures is another test's."""

import pytest
from samples import check_golden

from vramplan.quant.errors import Errors, Tried
from vramplan.quant.formats import Format, Kind, formats, model_sizes
from vramplan.quant.study import Study, study
from vramplan.report.layout import Page, visible
from vramplan.report.quant_text import render_levels, render_study
from vramplan.scenario import Scenario

NF4 = Format(Kind.NF4, 64, double=True)
SINGLE = Errors(1600, 12.5, 1600.0, 0.5, 4.0, tuple(range(25, 185, 10)))
TOTAL = Errors(1600, 12.75, 1600.0, 0.53, 4.0, tuple(range(25, 185, 10)))


def tried(*wanted: Format, names: tuple[str, ...] = ("weights",)) -> Study:
    """A study of formats on weights of whose errors only the shape matters."""
    scenario = Scenario.load("llama-2-7b")
    found = tuple(
        Tried(
            made, TOTAL if made.double else SINGLE, SINGLE if made.double else None, tuple((n, SINGLE) for n in names)
        )
        for made in wanted
    )
    plain = study(wanted, scenario, None)
    return Study(wanted, plain.model, plain.sizes, plain.baselines, "model.safetensors", found)


@pytest.mark.parametrize("width", [0, 70])
def test_all_formats(width: int) -> None:
    wanted = tuple(made for made in formats(None, None, double=None) if made.kind.four_bit)
    text = render_study(tried(*wanted, names=("a", "b")), Page(width))
    check_golden(f"quant-{width or 'pipe'}.txt", text)
    assert not width or all(visible(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("width", [0, 70])
def test_one_format_in_detail(width: int) -> None:
    check_golden(f"quant-one-{width or 'pipe'}.txt", render_study(tried(NF4), Page(width)))


def test_without_model_and_weights_there_are_bits() -> None:
    check_golden("quant-bits.txt", render_study(study(formats(None, None, double=None), None, None), Page()))


def test_a_model_of_which_nothing_is_quantised() -> None:
    text = render_study(study((NF4,), Scenario.load("falcon-7b"), None), Page())
    assert text.startswith("falcon-7b: no parameters in matrices that are quantised")
    assert "overhead by part" not in text


def test_levels() -> None:
    check_golden("quant-levels.txt", render_levels(Page()))


def test_json_has_every_figure_once() -> None:
    body = tried(NF4).to_json()
    [row] = body["formats"]
    assert body["kind"] == "quantization"
    assert row["bits_per_parameter"]["total"] == 4.126953125
    [size] = model_sizes(Scenario.load("llama-2-7b"), [NF4])
    assert row["model"]["matrices"] == size.parts.total == sum(row["model"][part] for part in size.parts._fields)
    assert row["errors"]["added_by_double"] == pytest.approx(0.02)
    assert body["unquantized"]["float16"]["model"] == 2 * 6_738_415_616
