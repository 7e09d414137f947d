"""`vramplan quant` from the command line."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from vramplan.cli import main


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["quant", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_sizes_and_levels_need_no_torch() -> None:
    program = (
        "import sys, vramplan.cli\n"
        "for argv in (['llama-2-7b'], ['--levels'], ['--quant-type', 'nf4', '--json']):\n"
        "    assert vramplan.cli.main(['quant', *argv]) == 0\n"
        "heavy = {'torch', 'numpy', 'bitsandbytes', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_torch_weights_cannot_be_tried() -> None:
    """A Python that has neither torch nor bitsandbytes: one whose import system does not find them."""
    program = (
        "import sys, importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name in ('torch', 'bitsandbytes') else found(name, *a)\n"
        "import vramplan.cli\n"
        "sys.exit(vramplan.cli.main(['quant', '--weights', 'normal']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "torch, bitsandbytes, which are not installed" in done.stderr
    assert "vramplan[measure]" in done.stderr


def test_weights_are_tried_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg, html = tmp_path / "quant.svg", tmp_path / "quant.html"
    argv = ("--quant-type", "nf4", "--block-size", "64", "--svg", str(svg), "--html", str(html))
    code, out, _ = answer(capsys, *argv)
    assert code == 0
    assert "errors on 1,048,576 weights: normal" in out
    picture = ET.fromstring(svg.read_text())
    assert picture.tag.endswith("svg")
    drawn = svg.read_text()
    assert "Signal to noise" in drawn
    legend = drawn[drawn.index('legend_1"') : drawn.index('axes_2"')]
    axes = re.search(r'<clipPath [^>]*>\s*<rect [^>]*y="([\d.]+)"', drawn)
    assert axes is not None
    heights = [float(y) for y in re.findall(r'<use [^>]* y="([\d.]+)"', legend)]
    assert len(heights) == 2
    assert max(heights) < float(axes[1]), "the legend is above the axes, where no mark can lie under it"
    page = html.read_text()
    assert page.count("<svg") == 2
    assert "errors on 1,048,576 weights" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_the_same_seed_gives_the_same_answer(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--weights", "heavy-tailed", "--quant-type", "fp4", "--block-size", "128", "--no-double", "--json")
    [first, again, other] = [answer(capsys, *argv, "--seed", seed)[1] for seed in ("3", "3", "4")]
    assert first == again != other
    [row] = json.loads(first)["formats"]
    assert (row["format"], row["block_size"], row["double"]) == ("fp4", 128, False)
    assert sum(row["errors"]["codes"]) == row["errors"]["weights"] == 2**20


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("nope",), "unknown target 'nope'"),
        (("--quant-type", "nf3"), "nf3"),
        (("--block-size", "48"), "no blocks of '48'"),
        (("--quant-type", "int8", "--double"), "--double with int8"),
        (("--weights", "norml"), "unknown --weights 'norml'"),
        (("--seed", "-1", "--weights", "normal"), "seed"),
        (("--levels", "--weights", "normal"), "--levels with --weights"),
        (("--svg", "/no/such/place.svg"), "there is no directory '/no/such'"),
        (("--html", "/"), "it is a directory"),
        (("stacks",), "quant needs one scenario"),
        (("stacks",), "hint:  give the model's name"),
        (("--levels", "--quant-type", "nf4"), "--levels with --quant-type"),
        (("--levels", "--no-double"), "--levels with --double"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(capsys, *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
