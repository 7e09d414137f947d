"""What works on this machine, as text. Pure: a value in, a string out."""

from collections.abc import Iterator

from vramplan.doctor import EXTRAS, WITHOUT, Diagnosis
from vramplan.measure.nvml import Card
from vramplan.report.layout import table
from vramplan.units import human


def render_diagnosis(diagnosis: Diagnosis) -> str:
    """The diagnosis as text; what each command can do here is at the end."""
    lines = [f"vramplan {diagnosis.version}, Python {diagnosis.python}, {diagnosis.system}", ""]
    rows = [["library", "installed", "wanted", "extra"]]
    for library in diagnosis.libraries:
        note = "" if library.accepted or not library.installed else "  (outside the range)"
        rows.append([library.name, library.installed or "-", library.wanted + note, library.extra])
    if not diagnosis.libraries:
        rows = [["run from a source tree: what each command needs is only known after pip install -e ."]]
    lines += [*table(rows, left=(0, 1, 2, 3)), ""]
    lines += [_gpu_line(card) for card in diagnosis.gpus]
    lines += [f"driver: {diagnosis.driver}"] if diagnosis.driver else []
    lines += [f"hidden: {diagnosis.hidden}"] if diagnosis.hidden else []
    lines += [f"gpu: none ({diagnosis.gpu_note})"] if diagnosis.gpu_note else []
    lines += ["hub: offline (HF_HUB_OFFLINE)"] if diagnosis.offline else []
    return "\n".join([*lines, "", *_abilities(diagnosis)])


def _gpu_line(card: Card) -> str:
    capability = f", compute capability {card.compute_capability}" if card.compute_capability else ""
    busy = f", busy: {len(card.processes)} compute processes" if card.processes else ""
    return f"gpu: {card.name}, {human(card.free)} of {human(card.capacity)} free{capability}{busy}"


def _abilities(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"works: {', '.join(WITHOUT)}"
    for extra, commands in EXTRAS.items():
        if diagnosis.ready(extra):
            yield f"works: {', '.join(commands)}"
        else:
            yield f"needs pip install 'vramplan[{extra}]': {', '.join(commands)}"
    if not diagnosis.gpus:
        yield "needs a GPU: measure --device cuda"
    elif diagnosis.hidden:
        yield "needs a visible GPU: measure --device cuda"
