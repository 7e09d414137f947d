"""The flags of a data set, which `predict` and `plan` share, and what they ask for."""

from argparse import ArgumentParser, Namespace, _ActionsContainer
from typing import TYPE_CHECKING

from vramplan.commands.flags import add_choice, add_path, count
from vramplan.errors import UsageError
from vramplan.files import user_path
from vramplan.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from vramplan.dataset.outlook import Outlook
    from vramplan.dataset.packing import Packer
    from vramplan.dataset.survey import Data, Survey
    from vramplan.plan.limit import Limit
    from vramplan.record import Device
    from vramplan.scenario import Scenario

SAMPLERS = ("random", "grouped", "packed")
PACKINGS = ("bfd", "bfd_split", "wrapped")
#: A file of this size is read in about a second, or tokenised in some ten; for a larger one there is progress.
_LARGE = 16 * MIB


def add_data_flags(parser: ArgumentParser) -> None:
    """Where the samples are, and how they become batches."""
    group = parser.add_argument_group("data set", "which batches there will be; the longest one decides what fits")
    files = group.add_mutually_exclusive_group()
    add_path(
        files,
        "--data",
        type=user_path,
        metavar="FILE",
        help="samples to train on: .jsonl, .parquet, .csv, .tsv or .txt, also .gz; text needs --tokenizer "
        "(instruction and output are put into Alpaca's template)",
    )
    add_path(
        files,
        "--lengths",
        type=user_path,
        metavar="FILE",
        help="tokens of each sample: .txt, .npy, .parquet, .jsonl, .csv",
    )
    add_path(group, "--tokenizer", type=user_path, metavar="DIR", help="directory with the model's tokenizer.json")
    group.add_argument("--field", metavar="NAME", help="the field or column that holds a sample")
    group.add_argument("--skip-bad", action="store_true", help="leave malformed lines out instead of refusing them")
    _add_batches(group)


def _add_batches(group: _ActionsContainer) -> None:
    """Which samples make a batch."""
    add_choice(
        group,
        "--sampler",
        SAMPLERS,
        metavar="S",
        help="random (the default), grouped (transformers' group_by_length) or packed (TRL's packing)",
    )
    add_choice(
        group,
        "--packing",
        PACKINGS,
        metavar="P",
        help="bfd (the default), bfd_split or wrapped, for --sampler packed",
    )
    group.add_argument(
        "--pad-to-multiple-of", type=count("--pad-to-multiple-of"), metavar="N", help="batches are padded to such"
    )


def asks_for_data(args: Namespace) -> bool:
    """Whether a data set is given; flags that need one are refused without."""
    if args.data or args.lengths:
        return True
    for option in ("tokenizer", "field", "skip_bad", "sampler", "packing", "pad_to_multiple_of"):
        if getattr(args, option):
            raise UsageError(
                f"--{option.replace('_', '-')} is about a data set, and none is given",
                hint="name its file: --data FILE, or --lengths FILE",
            )
    return False


def outlook_of(args: Namespace, scenario: "Scenario", limit: "Limit | None", device: "Device") -> "Outlook":
    """The data set that the flags name, read, under the scenario."""
    from vramplan.dataset.outlook import Feed, Sampler, check_trains_on_data, outlook
    from vramplan.dataset.packing import Packer, Packing

    check_trains_on_data(scenario)
    sampler = Sampler(args.sampler or Sampler.RANDOM)
    if args.packing and sampler is not Sampler.PACKED:
        raise UsageError("--packing belongs to packed rows", hint="add --sampler packed")
    feed = Feed(sampler, Packing(args.packing or Packing.BFD), args.pad_to_multiple_of or 1)
    packer = Packer(feed.packing, scenario.seq) if sampler is Sampler.PACKED else None
    found = _survey(_data(args), packer)
    return outlook(scenario, found, feed, packer.rows() if packer else None, limit, device)


def _data(args: Namespace) -> "Data":
    from vramplan.dataset.sources import check_readable
    from vramplan.dataset.survey import Data

    if args.lengths and args.tokenizer:
        raise UsageError("--tokenizer counts the tokens of text, and --lengths has none", hint="give --data FILE")
    path = args.data or args.lengths
    check_readable(path)
    return Data(path, args.tokenizer, args.field or "", args.skip_bad)


def _survey(data: "Data", packer: "Packer | None") -> "Survey":
    """The data set gone through, with progress on stderr where that takes its time."""
    from vramplan.dataset.survey import survey

    size = data.path.stat().st_size
    if size < _LARGE:
        return survey(data, packer=packer)
    from vramplan.report.progress import progress

    with progress(f"reading {data.path.name}") as say:
        return survey(data, packer=packer, news=_news(say, data.path.name))


def _news(say: "Callable[[str], None]", name: str) -> "Callable[[float, int], None]":
    """Says where the reading is, at every twentieth of the file."""
    told = 0

    def news(share: float, samples: int) -> None:
        nonlocal told
        if int(share * 20) > told:
            told = int(share * 20)
            say(f"reading {name}: {share:.0%}, {samples:,} samples")

    return news
