"""`vramplan quant`: what a quantisation format costs, and what it does to weights."""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_choice, add_json, add_path, json_text, page, writable
from vramplan.commands.origin import TARGET
from vramplan.errors import UsageError

if TYPE_CHECKING:
    from vramplan.quant.study import Study
    from vramplan.quant.weights import Source
    from vramplan.scenario import Scenario

EXAMPLES = """\
  vramplan quant
  vramplan quant llama-2-7b --quant-type nf4
  vramplan quant llama-2-7b --quant-type nf4 --block-size 64 --double
  vramplan quant --weights normal --svg formats.svg
  vramplan quant --weights model.safetensors:model.layers.0.mlp.up_proj.weight --quant-type nf4 --block-size 64
  vramplan quant --levels"""
KINDS = ("nf4", "fp4", "int4", "int8")


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(parser, "target", metavar="TARGET", nargs="?", help=f"the model whose sizes to tell: {TARGET}")
    add_choice(
        parser,
        "--quant-type",
        KINDS,
        metavar="T",
        help="nf4, fp4, int8, or int4 (a control with evenly spaced levels); default: all of them",
    )
    parser.add_argument("--block-size", type=_block, metavar="N", help="weights that share a constant, 32 to 4096")
    parser.add_argument(
        "--double", action=BooleanOptionalAction, help="quantise the constants too, or not (default: both)"
    )
    add_path(
        parser,
        "--weights",
        metavar="W",
        help="try the formats on weights: normal, heavy-tailed (Student's t), or FILE.safetensors[:TENSOR]",
    )
    parser.add_argument("--seed", type=_seed, metavar="N", default=0, help="of drawn weights (default: 0)")
    parser.add_argument("--levels", action="store_true", help="print the levels of the 4-bit formats, and nothing else")
    add_path(parser, "--svg", type=writable("--svg"), metavar="FILE", help="the plots as one picture")
    add_path(parser, "--html", type=writable("--html"), metavar="FILE", help="plots and tables as one page")
    add_json(parser)


def _block(text: str) -> int:
    from vramplan.scenario_schema import BLOCK_SIZES

    if text not in map(str, BLOCK_SIZES):
        allowed = ", ".join(map(str, BLOCK_SIZES))
        raise UsageError(f"--block-size: bitsandbytes has no blocks of '{text}'", hint=f"allowed: {allowed}")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise UsageError(f"--seed: '{text}' is not a seed", hint="give an integer from 0 on")
    return int(text)


def run(args: Namespace) -> Answer:
    """Compare the formats that are asked for."""
    if args.levels:
        return _levels(args)
    from vramplan.quant.formats import Kind, formats
    from vramplan.quant.study import study
    from vramplan.report.quant_text import render_study

    if args.svg or args.html:  # before the work, not after
        from vramplan.report.html.drawing import require_plots

        require_plots()
    wanted = formats(Kind(args.quant_type) if args.quant_type else None, args.block_size, double=args.double)
    scenario = _scenario(args.target)
    done = study(wanted, scenario, _source(args))
    written = _write(done, args)
    if args.json:
        return Answer(json_text(done.to_json()))
    return Answer("\n".join([render_study(done, page()), *written]))


def _levels(args: Namespace) -> Answer:
    from vramplan.report.quant_text import levels_json, render_levels

    others = {
        "a target": args.target,
        "--quant-type": args.quant_type,
        "--block-size": args.block_size,
        "--double": args.double,
        "--weights": args.weights,
        "--svg": args.svg,
        "--html": args.html,
    }
    given = next((name for name, value in others.items() if value is not None), "")
    if given:
        raise UsageError(
            f"--levels with {given}: the levels are all there are, and the same for every model",
            hint="ask for one of the two",
        )
    return Answer(json_text(levels_json()) if args.json else render_levels(page()))


def _scenario(target: str | None) -> "Scenario | None":
    if target is None:
        return None
    from vramplan.commands.origin import resolve_aloud

    return resolve_aloud(target, {}).single("quant", hint="give the model's name, or one scenario")


def _source(args: Namespace) -> "Source | None":
    """The weights that are asked for; plots need some, and take the normal distribution."""
    if args.weights is None and args.svg is None and args.html is None:
        return None
    from vramplan.quant.weights import NORMAL, require_torch, source

    found = source(args.weights if args.weights is not None else NORMAL, args.seed)
    require_torch()
    return found


def _write(done: "Study", args: Namespace) -> list[str]:
    """Render every file that is asked for, then write them; the lines that say so."""
    if args.svg is None and args.html is None:
        return []
    from vramplan.report.quant_plot import render_quant_page, render_quant_svg
    from vramplan.report.report_file import write_rendered

    asked = (("--svg", args.svg, render_quant_svg), ("--html", args.html, render_quant_page))
    rendered = ((option, file, render(done).encode()) for option, file, render in asked if file is not None)
    return ["", *write_rendered(rendered)]


COMMAND = Command(
    name="quant",
    order=17,
    summary="compare quantisation formats: bits per parameter, a model's size, errors on weights",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
