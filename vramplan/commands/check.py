"""`vramplan check`: the regression gate."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import (
    add_choice,
    add_device,
    add_engine,
    add_path,
    add_scenario_flags,
    json_text,
    overrides,
    page,
    writable,
)
from vramplan.commands.origin import TARGET
from vramplan.errors import UsageError
from vramplan.files import user_path

if TYPE_CHECKING:
    from vramplan.check import Check, Item
    from vramplan.record import Device
    from vramplan.scenario import Scenario

EXAMPLES = """\
  vramplan check new/ --against reports/baseline
  vramplan check scenarios/quickstart.yaml --against baseline.json --limit peak:1% --limit unquantized:0B
  vramplan check new/ --against reports/baseline --limit backward.activations:2MiB --format github
  vramplan check new/ --against reports/baseline --write check.md --write check.xml
  vramplan check new/ --against reports/baseline --update"""
FORMATS = ("text", "markdown", "json", "github", "junit")


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(
        parser,
        "new",
        metavar="NEW",
        nargs="+",
        help=f"records or predictions (files or directories), or what is to be predicted: {TARGET}",
    )
    _add_judgement(parser)
    _add_format(parser)
    add_engine(parser, "what predicts a scenario: analytic (default) or trace")
    add_device(parser, None, "whose memory is predicted: cuda or cpu (default: as in the baseline, else cuda)")
    add_scenario_flags(parser)


def _add_judgement(parser: ArgumentParser) -> None:
    add_path(parser, "--against", metavar="BASELINE", required=True, help="file or directory of results to hold to")
    parser.add_argument(
        "--limit",
        dest="limits",
        metavar="SUBJECT:AMOUNT",
        action="append",
        default=[],
        help="growth allowed, in per cent or bytes, of: peak, reserved, device, steady, phases (each of them), "
        "a phase, a component (in each phase), or phase.component; "
        "default: 0.5%% of peak, phases, steady and reserved",
    )
    parser.add_argument(
        "--allow-vanished",
        action="store_true",
        help="what the baseline has and NEW lacks is no regression; with --update it is removed",
    )
    parser.add_argument("--update", action="store_true", help="make NEW the baseline, and say what changed")


def _add_format(parser: ArgumentParser) -> None:
    shown = parser.add_mutually_exclusive_group()
    add_choice(
        shown,
        "--format",
        FORMATS,
        metavar="FORMAT",
        default="text",
        help="text (default), markdown, json, github (workflow commands) or junit (XML)",
    )
    shown.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    add_path(
        parser,
        "--write",
        dest="files",
        type=writable("--write"),
        metavar="FILE",
        action="append",
        default=[],
        help="also write the answer to FILE: .md as Markdown, .json, .xml as junit; may be given several times",
    )


def run(args: Namespace) -> Answer:
    """No when anything regressed; nothing compared, or something not comparable, is no yes either."""
    from vramplan.check import DEFAULT_LIMITS, check, parse_limits
    from vramplan.report.report_file import write_whole

    limits = parse_limits(args.limits) or DEFAULT_LIMITS
    files = _files(args)
    path = user_path(args.against)
    baseline = _baseline(path, begins=args.update)
    asked, scope, notes = _asked(args, baseline)
    if args.update:
        return _update(args, path, asked, baseline)
    done = check(asked, scope, limits, allow_vanished=args.allow_vanished, notes=notes)
    for file, form in files:
        write_whole(file, f"{_shown(done, form)}\n".encode(), option="--write")
    return Answer(_shown(done, args.format), done.code)


def _baseline(path: Path, *, begins: bool) -> "Sequence[Item]":
    """The results to hold to: none where a baseline `begins`, and no place without any otherwise."""
    from vramplan.check import read_items
    from vramplan.check.items import result_files

    if begins and (not path.exists() or not result_files(path)):
        return ()
    if not path.exists():
        raise UsageError(f"--against: {path} does not exist", hint="the same command with --update writes it")
    return read_items(path)


#: Formats of `--write`, by the file's suffix.
_SUFFIXES = {".md": "markdown", ".json": "json", ".xml": "junit"}


def _files(args: Namespace) -> list[tuple[Path, str]]:
    """What `--write` asks for, each file with its format; known before the work begins."""
    files: list[Path] = args.files
    if files and args.update:
        raise UsageError("--update compares nothing that --write could tell", hint="leave one of the two out")
    for file in files:
        if file.suffix.lower() not in _SUFFIXES:
            hint = f"write a name that ends in {', '.join(_SUFFIXES)}"
            raise UsageError(f"--write: cannot tell the format of '{file}'", hint=hint)
    return [(file, _SUFFIXES[file.suffix.lower()]) for file in files]


def _update(args: Namespace, path: Path, new: "Sequence[Item]", baseline: "Sequence[Item]") -> Answer:
    from vramplan.check.update import update_baseline
    from vramplan.report.check_text import render_update

    if args.format not in ("text", "json"):
        raise UsageError(f"--update answers in text or json, not {args.format}", hint="leave out --format")
    done = update_baseline(path, new, baseline, remove_vanished=args.allow_vanished)
    return Answer(json_text(done.to_json()) if args.format == "json" else render_update(done, page()))


def _asked(args: Namespace, baseline: "Sequence[Item]") -> "tuple[list[Item], Sequence[Item], list[str]]":
    """The new results, the part of the baseline that they answer for, and a note on the part left out."""
    from vramplan.check import read_items
    from vramplan.check.items import holds_results
    from vramplan.commands.origin import resolve_aloud

    files = [text for text in args.new if holds_results(text)]
    targets = [resolve_aloud(text, overrides(args)) for text in args.new if text not in files]
    if not targets and overrides(args):
        keys = ", ".join(overrides(args))
        raise UsageError(f"{keys}: flags change scenarios, and NEW holds results", hint="leave the flags out")
    items = [item for text in files for item in read_items(user_path(text))]
    if files:
        scope, notes = baseline, []
    else:
        scope = [item for item in baseline if _answers_for(item, args)]
        if baseline and not scope and not args.update:
            raise _of_another_engine(baseline, args)
        left_out = len(baseline) - len(scope)
        notes = [f"{left_out} of the baseline's {len(baseline)} are of another engine or device"] if left_out else []
    items += [item for target in targets for scenario in target.scenarios for item in _predict(scenario, args, scope)]
    return items, scope, notes


def _of_another_engine(baseline: "Sequence[Item]", args: Namespace) -> UsageError:
    """The error for a baseline that answers for nothing that is predicted."""
    from vramplan.report.report_words import counted

    asked = " on ".join(filter(None, (f"engine {args.engine}", args.device)))
    others = ", ".join(sorted({f"{item.key.engine} on {item.key.device}" for item in baseline}))
    return UsageError(
        f"nothing to compare: --against {args.against} holds {counted(len(baseline), 'result')}, and none of {asked}",
        hint=f"it holds {others}; --engine and --device choose what is predicted, --update writes a baseline of it",
    )


def _answers_for(item: "Item", args: Namespace) -> bool:
    return item.key.engine == args.engine and args.device in (None, item.key.device)


def _predict(scenario: "Scenario", args: Namespace, baseline: "Sequence[Item]") -> "Iterator[Item]":
    """The scenario predicted on every device on which the baseline has it, against the baseline's budget."""
    from vramplan.api import predict
    from vramplan.check import Item
    from vramplan.record import Prediction

    before = [i for i in baseline if i.key.scenario == scenario.name and _answers_for(i, args)]
    devices: list[Device] = [item.result.device for item in before] or [args.device or "cuda"]
    for device in dict.fromkeys(devices):
        known = [i.result for i in before if i.key.device == device and isinstance(i.result, Prediction)]
        verdict = next((result.verdict for result in known if result.scenario.gpu == scenario.gpu), None)
        budget = verdict.budget if verdict else None
        prediction = predict(scenario, args.engine, device=device, budget=budget)
        yield Item(prediction, f"{scenario.name}, predicted now")


def _shown(done: "Check", form: str) -> str:
    from vramplan.report.check_github import check_github
    from vramplan.report.check_junit import check_junit
    from vramplan.report.check_markdown import check_markdown
    from vramplan.report.check_text import render_check

    renderers: dict[str, Callable[[Check], str]] = {
        "text": lambda value: render_check(value, page()),
        "markdown": check_markdown,
        "json": lambda value: json_text(value.to_json()),
        "github": check_github,
        "junit": check_junit,
    }
    return renderers[form](done)


COMMAND = Command(
    name="check",
    order=40,
    summary="hold new results to a baseline: the regression gate",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
