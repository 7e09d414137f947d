"""Formats side by side as text: bits per parameter, a model's bytes, errors; one format in detail; the levels."""

from collections.abc import Iterator

from vramplan.predict.quantization import bits_sentence
from vramplan.quant.errors import Errors, Tried
from vramplan.quant.formats import Format, Kind, ModelSize
from vramplan.quant.levels import NF4_OFFSET, fp4_levels, int4_levels, nf4_levels, plain_quantiles
from vramplan.quant.study import Study
from vramplan.report.layout import Page, bar, fitting_table, table, table_unit
from vramplan.units import human

_INDENT = "  "
_BAR_CELLS = 40
#: How many tensors of a file are shown, those with the least signal to noise.
_WORST = 5


def render_study(study: Study, page: Page) -> str:
    """The comparison, then what is left to say about the model, the weights, and a format that stands alone."""
    sections = [_comparison(study, page)]
    if study.baselines:
        sections.append(_unquantized(study, page))
    if len(study.formats) == 1:
        sections += _alone(study, page)
    if study.tried and len(study.tried[0].tensors) > 1:
        sections.append(_worst_tensors(study.tried[0], page))
    return "\n\n".join("\n".join(section) for section in sections)


def _comparison(study: Study, page: Page) -> list[str]:
    head = ["format", "bits", "first level", "second level"]
    unit, factor = table_unit(max((size.total for size in study.sizes), default=0))
    if study.sizes:
        head += [f"{unit} matrices", "of fp16", f"{unit} model"]
    if study.tried:
        head += ["mean sq error", "SNR dB", "max error", "double adds"]
    rows = [head]
    for i, made in enumerate(study.formats):
        row = [made.label, *_bits_cells(made)]
        if study.sizes:
            row += _size_cells(study.sizes[i], factor)
        if study.tried:
            row += _error_cells(study.tried[i])
        rows.append(row)
    lines = [*page.wrap(_title(study), indent=_INDENT), ""] if study.model or study.weights else []
    shown = fitting_table(rows, page, left=("format",), less_important=_DISPENSABLE)
    return [*lines, *shown, *_notes(study, page, added="double adds" in shown[0])]


_DISPENSABLE = ("second level", "first level", "max error", "of fp16", "mean sq error", "double adds")


def _title(study: Study) -> str:
    parts = []
    if study.sizes:
        count = study.sizes[0].parameters
        parts.append(f"{study.model}: {f'{count:,}' if count else 'no'} parameters in matrices that are quantised")
    if study.tried:
        count = len(study.tried[0].tensors)
        many = f" in {count} matrices" if count > 1 else ""
        parts.append(f"errors on {study.tried[0].total.count:,} weights{many}: {study.weights}")
    return "; ".join(parts)


def _bits_cells(made: Format) -> list[str]:
    bits = made.bits
    if not made.kind.four_bit:
        return ["8 + 32/row", "32/row", "-"]
    return [f"{bits.per_parameter:.4f}", f"{bits.first:.4f}", f"{bits.second:.4f}" if bits.second else "-"]


def _size_cells(size: ModelSize, factor: int) -> list[str]:
    share = size.parts.total / (2 * size.parameters) if size.parameters else 1.0
    return [f"{size.parts.total / factor:.2f}", f"{share:.1%}", f"{size.total / factor:.2f}"]


def _error_cells(tried: Tried) -> list[str]:
    total = tried.total
    added = "-" if tried.added is None else f"{tried.added:+.3%}"
    return [f"{total.mean_squared:.3e}", _decibels_text(total), f"{total.worst:.2e}", added]


def _notes(study: Study, page: Page, *, added: bool) -> list[str]:
    texts = []
    if any(not made.kind.four_bit for made in study.formats):
        texts.append("int8 has one fp32 scale per output row: 32 bits more for each row of weights")
    if added:
        texts.append("double adds: what double quantisation adds to the mean squared error")
    if any(made.kind is Kind.INT4 for made in study.formats):
        texts.append(
            "int4 is a control with evenly spaced levels, stored as nf4 is; bitsandbytes does not train with it"
        )
    return [line for text in texts for line in page.wrap(text, indent=_INDENT)]


def _unquantized(study: Study, page: Page) -> list[str]:
    unit, factor = table_unit(study.baselines[0].total)
    rows = [["unquantised", f"{unit} matrices", f"{unit} model"]]
    rows += [[b.name, f"{b.matrices / factor:.2f}", f"{b.total / factor:.2f}"] for b in study.baselines]
    rest = human(study.sizes[0].rest)
    note = f"what is not quantised (embeddings, head, norms, ...) takes {rest} of every model above, as loaded"
    return [*table(rows), *page.wrap(note, indent=_INDENT)]


def _alone(study: Study, page: Page) -> Iterator[list[str]]:
    """What only one format has room for: its overhead by part, and the use of its codes."""
    made = study.formats[0]
    if made.kind.four_bit:
        yield page.wrap(bits_sentence(made.quant, digits=4), indent=_INDENT)
    if study.sizes and study.sizes[0].parameters:
        yield _parts(study.sizes[0], page)
    if study.tried:
        yield _codes(made, study.tried[0].total, page)


def _parts(size: ModelSize, page: Page) -> list[str]:
    parts = {
        "packed weights": size.parts.packed,
        "first-level constants": size.parts.first,
        "second-level constants": size.parts.second,
        "offsets": size.parts.offsets,
        "code tables and maps": size.parts.tables,
        "total": size.parts.total,
    }
    rows = [["overhead by part", "bytes", "MiB", "bits per parameter"]]
    for words, held in parts.items():
        if held:
            rows.append([words, f"{held:,}", f"{held / 2**20:.2f}", f"{8 * held / size.parameters:.6f}"])
    return fitting_table(rows, page, left=("overhead by part",), less_important=("MiB",))


def _codes(made: Format, total: Errors, page: Page) -> list[str]:
    """One bar per level; of int8's 255 levels, one per sixteenth."""
    levels, counts = made.kind.levels, total.codes
    pairs = list(zip(levels, counts, strict=True))
    if len(pairs) > 16:
        groups = [pairs[i : i + 16] for i in range(0, len(pairs), 16)]
        pairs = [(group[0][0], sum(count for _, count in group)) for group in groups]
    most = max(count for _, count in pairs)
    cells = min(max(page.width - 24, 6), _BAR_CELLS) if page.width else _BAR_CELLS
    title = "level" if len(levels) <= 16 else "from level"
    rows = [[title, "weights", ""]]
    rows += [[f"{lv:+.4f}", f"{c / total.count:.2%}", bar(c / most if most else 0.0, cells)] for lv, c in pairs]
    return table(rows, left=(2,))


def _worst_tensors(tried: Tried, page: Page) -> list[str]:
    worst = sorted(tried.tensors, key=lambda found: _decibels(found[1]))[:_WORST]
    rows = [[f"least signal to noise in {tried.format.label}", "SNR dB", "relative error"]]
    rows += [[name, _decibels_text(e), f"{e.relative:.3e}"] for name, e in worst]
    return fitting_table(rows, page, left=(rows[0][0],), less_important=("relative error",))


def _decibels(errors: Errors) -> float:
    return float("inf") if errors.decibels is None else errors.decibels


def _decibels_text(errors: Errors) -> str:
    return "exact" if errors.decibels is None else f"{errors.decibels:.2f}"


def render_levels(page: Page) -> str:
    """The 16 codes of every 4-bit format, and the plain quantiles that NF4 is not."""
    uniform = [f"{level:+.4f}" for level in int4_levels()]
    columns = [[f"{v:+.7f}" for v in nf4_levels()], [f"{v:+.4f}" for v in fp4_levels()], [*uniform, ""]]
    quantiles = [f"{v:+.4f}" for v in plain_quantiles()]
    rows = [["code", "nf4", "fp4", "int4", "plain quantiles"]]
    rows += [[str(i), *cells] for i, cells in enumerate(zip(*columns, quantiles, strict=True))]
    lines = fitting_table(rows, page, left=(), less_important=("plain quantiles", "int4", "fp4"))
    notes = (
        "nf4 is not symmetric: 7 levels below an exact zero, 8 above it, quantiles of the normal distribution up to "
        f"{NF4_OFFSET} scaled to reach -1 and 1",
        "plain quantiles, 16 evenly spaced ones, are symmetric and have no zero: tables like that are not nf4",
        "fp4 has two zeros (its codes are bit patterns, here in ascending order); int4 uses 15 of its 16 codes",
    )
    return "\n".join([*lines, "", *(line for note in notes for line in page.wrap(note, indent=_INDENT))])


def levels_json() -> dict[str, list[float]]:
    """The levels by format, ascending."""
    kinds = {kind.value: list(kind.levels) for kind in (Kind.NF4, Kind.FP4, Kind.INT4)}
    return kinds | {"plain_quantiles": list(plain_quantiles())}
