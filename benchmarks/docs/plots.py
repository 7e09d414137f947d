"""The pages' plots, every one drawn from predictions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

import vramplan
from benchmarks.docs.picture import GROUPS, Group, Plot, legend, parts, parts_of_peak, stacked_bars
from vramplan.catalog.gpus import gpu
from vramplan.ledger import Component, Phase
from vramplan.predict.forecast import ledger
from vramplan.quant.formats import Format, Kind
from vramplan.record import Prediction
from vramplan.report.html.drawing import FG, ROUND, SOFT, SQUARE
from vramplan.units import GIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODEL = "llama-3.1-8b"
BATCH, SEQ = 2, 2048
CARD = "rtx4090"
#: A vocabulary each of about 32, 128 and 256 thousand tokens.
VOCABULARIES = ("llama-2-7b", MODEL, "gemma-7b")
LENGTHS = tuple(range(256, 8192 + 1, 128))
SIZES = ("llama-2-7b", "llama-2-13b", "llama-1-30b", "llama-1-65b", "llama-2-70b")
#: How a training loop is asked for on the command line, and its keys.
STACKS: tuple[tuple[str, dict[str, object]], ...] = (
    ("--stack script", {"stack": "script"}),
    ("--stack hf-trainer", {}),
    ("--upcast norms", {"stack": {"upcast": "norms"}}),
    ("--upcast none", {"stack": {"upcast": "none"}}),
    ("--loss liger", {"stack": {"loss": "liger"}}),
    ("--upcast none --loss liger", {"stack": {"upcast": "none", "loss": "liger"}}),
)


def predict(model: str, **keys: object) -> Prediction:
    """What `vramplan predict MODEL` answers."""
    return vramplan.predict(vramplan.Scenario.load(model, **keys))


def draw_step(figure: "Figure") -> None:
    """Every phase of a step as a stack of components."""
    prediction = predict(MODEL, batch=BATCH, seq=SEQ)
    axes = figure.subplots()
    stacked_bars(axes, [(phase.value, parts(prediction.ledger, phase)) for phase in prediction.ledger.phases])
    legend(figure, axes, columns=3)


def draw_lengths(figure: "Figure") -> None:
    """The peak over the sequence length, for three vocabularies."""
    panels = figure.subplots(1, len(VOCABULARIES), sharey=True)
    for axes, model in zip(panels, VOCABULARIES, strict=True):
        _draw_vocabulary(axes, model)
    panels[0].set_ylabel("GiB at the peak")
    legend(figure, panels[0], columns=3)


def _draw_vocabulary(axes: "Axes", model: str) -> None:
    scenario = vramplan.Scenario.load(model)
    found = [parts_of_peak(ledger(replace(scenario, seq=length))) for length in LENGTHS]
    heights = [[point[group] for point in found] for group in GROUPS]
    labels, colors = [group.name for group in GROUPS], [group.color for group in GROUPS]
    axes.stackplot(LENGTHS, heights, labels=labels, colors=colors, linewidth=0)
    start, group = _last_ruler(found)
    axes.axvline(start, color=FG, linewidth=1, linestyle=(0, (4, 3)))
    look: Any = {"transform": axes.get_xaxis_transform(), "va": "top", "fontsize": 11, "color": FG}
    right = start < LENGTHS[-1] / 2
    words = f"from {start:,}:\n{group.name}\nare the largest"
    axes.text(start + (110 if right else -110), 0.98, words, ha="left" if right else "right", **look)
    axes.set_xticks([2048, 4096, 6144, 8192], ["2,048", "4,096", "6,144", "8,192"])
    title = f"{model}\n{scenario.model.config['vocab_size']:,} tokens in the vocabulary"
    axes.set(title=title, xlim=(LENGTHS[0], LENGTHS[-1] + 1), xlabel="sequence length")


def _last_ruler(found: Sequence[Mapping[Group, float]]) -> tuple[int, Group]:
    """The component that is largest at the greatest length, and from which length on it is."""
    rulers = [max(point, key=point.__getitem__) for point in found]
    others = [place for place, group in enumerate(rulers) if group is not rulers[-1]]
    return LENGTHS[max(others, default=-1) + 1], rulers[-1]


def draw_double(figure: "Figure") -> None:
    """What constants take with one and with two levels: bits per parameter, bytes per model."""
    bits, sizes = figure.subplots(1, 2)
    _draw_bits(bits)
    _draw_constants(sizes)


def _draw_bits(axes: "Axes") -> None:
    blocks = (64, 128, 256, 512)
    for double, marker, color, name in (
        (False, "o", ROUND, "one level of constants"),
        (True, "s", SQUARE, "double quantisation"),
    ):
        totals = [Format(Kind.NF4, block, double).bits.per_parameter for block in blocks]
        axes.plot(range(len(blocks)), totals, marker=marker, markersize=7, color=color, label=name)
        for place, total in enumerate(totals):
            offset = (0, -16) if double else (9, 5)
            look: Any = {
                "textcoords": "offset points",
                "ha": "center" if double else "left",
                "fontsize": 10,
                "color": FG,
            }
            axes.annotate(f"{total:.4f}", (place, total), offset, **look)
    axes.set_xticks(range(len(blocks)), [str(block) for block in blocks])
    axes.set(ylim=(3.94, 4.58), title="Bits per parameter", xlabel="weights in a block")
    axes.margins(x=0.12)
    axes.legend(loc="upper right")


def _draw_constants(axes: "Axes") -> None:
    places = range(len(SIZES))
    for offset, double, color, name in ((-0.2, False, ROUND, "one level"), (0.2, True, SQUARE, "double")):
        sizes = [_constants(model, double=double) / GIB for model in SIZES]
        bars = axes.barh([place + offset for place in places], sizes, 0.38, color=color, label=name)
        axes.bar_label(bars, [f"{size:.2f}" for size in sizes], padding=3, fontsize=10, color=FG)
    axes.set_yticks(places, SIZES)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.set(title="Constants of a model, GiB", xlabel="GiB")
    axes.legend(loc="upper right")


def _constants(model: str, *, double: bool) -> int:
    return ledger(vramplan.Scenario.load(model, quant={"double": double})).bytes(Phase.LOAD, Component.QUANT_STATE)


def draw_stacks(figure: "Figure") -> None:
    """The same hyper-parameters in several training loops."""
    axes = figure.subplots()
    found = [(name, predict(MODEL, batch=BATCH, seq=SEQ, **keys)) for name, keys in STACKS]
    stacked_bars(axes, [(name, parts_of_peak(prediction.ledger)) for name, prediction in found], across=True)
    legend(figure, axes, columns=3)


def draw_fit(figure: "Figure") -> None:
    """What a run holds on the card over the sequence length, for some batches, and the card's capacity."""
    axes = figure.subplots()
    lengths = tuple(range(512, 4096 + 1, 512))
    for batch, marker, color in ((4, "^", SQUARE), (2, "s", SOFT), (1, "o", ROUND)):
        sizes = [_on_the_card(batch, length) for length in lengths]
        axes.plot(lengths, sizes, color=color, marker=marker, markersize=7, linewidth=2)
        look: Any = {"textcoords": "offset points", "va": "center", "fontsize": 11, "color": FG}
        axes.annotate(f"batch {batch}", (lengths[-1], sizes[-1]), (9, 0), **look)
    capacity = gpu(CARD).capacity / GIB
    axes.axhline(capacity, color=FG, linewidth=1.5, linestyle=(0, (5, 4)))
    axes.text(190, capacity + 0.7, f"all of an {CARD}: {capacity:.2f} GiB", fontsize=11, color=FG)
    axes.set_xticks([512, 1024, 2048, 3072, 4096], ["512", "1,024", "2,048", "3,072", "4,096"])
    axes.set(xlim=(128, 4560), ylim=(0, None), xlabel="sequence length", ylabel="GiB on the card")


def _on_the_card(batch: int, seq: int) -> float:
    """GiB, as the verdict says it: near the limit less than on an endless card, since PyTorch frees what it caches."""
    verdict = predict(MODEL, batch=batch, seq=seq, gpu=CARD).verdict
    assert verdict is not None  # a card is named
    return (verdict.budget - verdict.margin) / GIB


PLOTS = (
    Plot(
        "step",
        "Memory over a step",
        "A stack of components for each phase; backward is the highest.",
        900,
        480,
        draw_step,
    ),
    Plot(
        "lengths",
        "Peak over the sequence length",
        "Three panels; the larger the vocabulary, the sooner the logits are the largest component.",
        960,
        430,
        draw_lengths,
    ),
    Plot(
        "double",
        "What double quantisation saves",
        "Bits per parameter by block size, and the constants of five models, with and without double quantisation.",
        960,
        380,
        draw_double,
    ),
    Plot(
        "stacks",
        "One model in six training loops",
        "Peaks of the same hyper-parameters; the loop without upcast and with a fused loss needs less than half.",
        960,
        400,
        draw_stacks,
    ),
    Plot(
        "fit",
        "What fits on the card",
        "Memory on the card over the sequence length; a batch of one stays below the card's capacity.",
        820,
        420,
        draw_fit,
    ),
)
