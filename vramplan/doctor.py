"""What works on this machine: the libraries that are installed, the versions that were checked, the GPU."""

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import vramplan
from vramplan.record import SCHEMA

#: Extra -> what needs it.
EXTRAS = {
    "measure": ("measure", "predict --engine trace", "quant --weights"),
    "trl": ("measure and predict --engine trace of the stack trl",),
    "report": ("report --csv and --parquet, and the plots of --html",),
    "data": ("data sets of text (--data FILE --tokenizer DIR)", "data sets in Parquet"),
}
#: What needs no extra.
WITHOUT = ("predict", "plan", "inspect", "quant", "compare", "check", "explain-oom", "list")


@dataclass(frozen=True, slots=True)
class Library:
    """A library of an extra."""

    name: str
    extra: str
    installed: str
    """Version; empty when it is not installed."""
    wanted: str
    """Version range that pyproject.toml asks for."""
    accepted: bool
    """Whether the installed version is in that range."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card that the driver shows."""

    name: str
    capacity: int
    """Bytes."""
    free: int
    """Bytes."""
    compute_capability: str = ""
    processes: int = 0
    """Compute processes on it now."""


@dataclass(frozen=True)
class Diagnosis:
    """What works here, and what would make the rest work."""

    version: str
    python: str
    system: str
    libraries: tuple[Library, ...]
    gpus: tuple[Gpu, ...]
    gpu_note: str
    """Why no GPU is seen; empty when there is one."""
    offline: bool
    """Whether the environment keeps the hub client off the network."""
    driver: str = ""
    """Version of the driver, and the newest CUDA version that it serves."""
    hidden: str = ""
    """Why CUDA would not see the cards that the driver shows; empty when it would."""

    def ready(self, extra: str) -> bool:
        """Whether every library of an extra is installed in an accepted version."""
        needed = [library for library in self.libraries if library.extra == extra]
        return bool(needed) and all(library.accepted for library in needed)

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: diagnosis`."""
        extras = {extra: self.ready(extra) for extra in EXTRAS}
        return {"schema": SCHEMA, "kind": "diagnosis", **asdict(self), "ready": extras}


def diagnose() -> Diagnosis:
    """Look around; imports none of the heavy libraries."""
    gpus, note, driver = _gpus()
    return Diagnosis(
        version=vramplan.__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        libraries=tuple(_libraries()),
        gpus=gpus,
        gpu_note=note,
        offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
        driver=driver,
        hidden=_hidden() if gpus else "",
    )


def render_diagnosis(diagnosis: Diagnosis) -> str:
    """The diagnosis as text; what each command can do here is at the end."""
    from vramplan.report.layout import table

    lines = [f"vramplan {diagnosis.version}, Python {diagnosis.python}, {diagnosis.system}", ""]
    rows = [["library", "installed", "wanted", "extra"]]
    for library in diagnosis.libraries:
        note = "" if library.accepted or not library.installed else "  (outside the range)"
        rows.append([library.name, library.installed or "-", library.wanted + note, library.extra])
    if not diagnosis.libraries:
        rows = [["run from a source tree: what each command needs is only known after pip install -e ."]]
    lines += [*table(rows, left=(0, 1, 2, 3)), ""]
    lines += [_gpu_line(gpu) for gpu in diagnosis.gpus]
    lines += [f"driver: {diagnosis.driver}"] if diagnosis.driver else []
    lines += [f"hidden: {diagnosis.hidden}"] if diagnosis.hidden else []
    lines += [f"gpu: none ({diagnosis.gpu_note})"] if diagnosis.gpu_note else []
    lines += ["hub: offline (HF_HUB_OFFLINE)"] if diagnosis.offline else []
    return "\n".join([*lines, "", *_abilities(diagnosis)])


def _gpu_line(gpu: Gpu) -> str:
    capability = f", compute capability {gpu.compute_capability}" if gpu.compute_capability else ""
    busy = f", busy: {gpu.processes} compute processes" if gpu.processes else ""
    return f"gpu: {gpu.name}, {_gib(gpu.free)} of {_gib(gpu.capacity)} free{capability}{busy}"


def _gib(size: int) -> str:
    from vramplan.units import human

    return human(size)


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


def _libraries() -> Iterator[Library]:
    """The requirements of the extras, from the package's own metadata."""
    for text in _requirements():
        specifier, _, marker = text.partition(";")
        for extra in EXTRAS:
            if marker.replace('"', "'").strip() == f"extra == '{extra}'":
                yield _library(specifier.strip(), extra)


def _requirements() -> list[str]:
    try:
        return requires("vramplan") or []
    except PackageNotFoundError:  # run from a source tree that was never installed
        return []


def _library(specifier: str, extra: str) -> Library:
    end = next((i for i, letter in enumerate(specifier) if letter in "<>=!~ "), len(specifier))
    name, wanted = specifier[:end], specifier[end:]
    try:
        installed = version(name)
    except PackageNotFoundError:
        return Library(name, extra, "", wanted, accepted=False)
    return Library(name, extra, installed, wanted, accepted=accepts(wanted, installed))


def accepts(wanted: str, installed: str) -> bool:
    """Whether `installed` is in a range of `>=` and `<` bounds, the only ones that pyproject.toml uses."""
    for bound in filter(None, wanted.split(",")):
        at_least = bound.startswith(">=")
        if (_numbers(installed) >= _numbers(bound.lstrip("<>="))) != at_least:
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers of a release, trailing zeros dropped: 5.17.0 -> (5, 17)."""
    numbers = []
    for part in text.split("+")[0].split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _hidden() -> str:
    from vramplan.errors import CannotRun
    from vramplan.measure.nvml import first_visible

    try:
        first_visible(os.environ)
    except CannotRun as error:
        return error.message
    return ""


def _gpus() -> tuple[tuple[Gpu, ...], str, str]:
    """The cards as the driver's library (NVML) shows them, or why there are none; the driver."""
    try:
        import pynvml
    except ImportError:
        return (), "nvidia-ml-py is not installed", ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), str(error), ""
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    cards = tuple(_gpu(pynvml, handle) for handle in handles)
    cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    driver = f"{_text(pynvml.nvmlSystemGetDriverVersion())}, CUDA up to {cuda // 1000}.{cuda % 1000 // 10}"
    pynvml.nvmlShutdown()
    return cards, "" if cards else "the driver shows no card", driver


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    capability = ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(handle)))
    busy = len(nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    return Gpu(_text(nvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free), capability, busy)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value.decode())
