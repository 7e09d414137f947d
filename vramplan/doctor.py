"""What works on this machine: the libraries that are installed, the versions that were checked, the GPU."""

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import vramplan
from vramplan.errors import CannotRun
from vramplan.measure.nvml import Card, cards, first_visible
from vramplan.record import SCHEMA

#: Extra -> what needs it.
EXTRAS = {
    "measure": ("measure", "predict --engine trace", "quant --weights"),
    "trl": ("measure and predict --engine trace of the stacks trl and trl-dpo",),
    "liger": ("measure and predict --engine trace with Liger's kernels or loss",),
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


@dataclass(frozen=True)
class Diagnosis:
    """What works here, and what would make the rest work."""

    version: str
    python: str
    system: str
    libraries: tuple[Library, ...]
    gpus: tuple[Card, ...]
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
        facts = asdict(self) | {"gpus": [_gpu_json(card) for card in self.gpus]}
        return {"schema": SCHEMA, "kind": "diagnosis", **facts, "ready": extras}


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


def _gpu_json(card: Card) -> dict[str, Any]:
    facts = {name: getattr(card, name) for name in ("name", "capacity", "free", "compute_capability")}
    return facts | {"processes": len(card.processes)}


def _libraries() -> Iterator[Library]:
    """The requirements of the extras, from the package's own metadata."""
    for text in _requirements():
        specifier, _, marker = text.partition(";")
        for extra in EXTRAS:
            if f"extra == '{extra}'" in marker.replace('"', "'"):
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
    try:
        first_visible(os.environ)
    except CannotRun as error:
        return error.message
    return ""


def _gpus() -> tuple[tuple[Card, ...], str, str]:
    """The cards as the driver's library (NVML) shows them, or why there are none; the driver."""
    try:
        found, driver = cards()
    except CannotRun as error:
        missing = isinstance(error.__cause__, ImportError)
        return (), "nvidia-ml-py is not installed" if missing else str(error.__cause__), ""
    return found, "" if found else "the driver shows no card", f"{driver.version}, CUDA up to {driver.cuda}"
