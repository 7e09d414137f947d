"""Graphics cards by name: usable capacity, what decides library behaviour, and the size of a CUDA context."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vramplan.catalog.calibration import calibration
from vramplan.errors import UsageError, nearest
from vramplan.files import write_whole
from vramplan.units import GIB, MIB

_FILE = Path(__file__).parent / "gpus.json"
_REFERENCE = "t4"  # the card whose context was recorded
#: The card that is meant when a scenario names none.
REFERENCE_GPU = "a100-80gb"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card of the catalogue."""

    name: str
    title: str
    """As its maker sells it."""
    capacity: int
    """Bytes that a process can get from the driver, contexts included."""
    capacity_origin: str
    """`reported` by PyTorch on such a card, or `rule`: a share of the marketing size, low for its kind of memory."""
    compute_capability: str
    """`8.6`; decides kernels and library workspaces."""
    multiprocessors: int
    context: int
    """Bytes that a training process holds outside torch's allocator: CUDA context, loaded kernels."""
    context_origin: str
    """The record that the bytes come from, or the rule that scales it."""
    workspaces: int | None = None
    """Bytes of cuBLAS's workspaces of a training process, as measured with the context; None where no record says."""

    @property
    def capability(self) -> tuple[int, int]:
        """(8, 6): the compute capability, comparable."""
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


@cache
def _data() -> Mapping[str, Any]:
    data: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    cards = MappingProxyType({card["name"]: MappingProxyType(card) for card in data["cards"]})
    return MappingProxyType(data | {"cards": cards})


@cache
def gpu_names() -> tuple[str, ...]:
    """Every card of the catalogue, in its order: by kind and generation."""
    return tuple(_data()["cards"])


def gpu(name: str) -> Gpu:
    """The card `name`, with this user's own calibration of it; a UsageError names the nearest when there is none."""
    found = _catalogued(name)
    own = calibration(found.name)
    if own is None:
        return found
    return replace(found, context=own.context, context_origin=own.origin, workspaces=own.workspaces)


@cache
def _catalogued(name: str) -> Gpu:
    cards = _data()["cards"]
    card = cards.get(check_gpu(name))
    reference = cards[_REFERENCE]
    return Gpu(
        name=card["name"],
        title=card["title"],
        capacity=card.get("capacity", _by_rule(card)),
        capacity_origin="reported" if "capacity" in card else "rule",
        compute_capability=card["compute_capability"],
        multiprocessors=card["multiprocessors"],
        **_context(card, reference),
    )


def _context(card: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    if "context" in card:
        origin = f"recorded on {card['title']}, {card['record']}"
        return {"context": card["context"], "context_origin": origin, "workspaces": card.get("workspaces")}
    mine, its = card["multiprocessors"], reference["multiprocessors"]
    origin = f"no record of {card['title']}: {reference['title']}'s, scaled by multiprocessors ({mine}/{its})"
    return {"context": reference["context"] * mine // its // MIB * MIB, "context_origin": origin}


def _by_rule(card: Mapping[str, Any]) -> int:
    share = _data()["share_of_marketing_size"][card["memory"]]
    return int(card["memory_gib"] * GIB * share) // MIB * MIB


def check_gpu(name: str) -> str:
    """The catalogue's spelling of `name`, as people or drivers write it (`RTX 3090`, `4090`, `NVIDIA A100-SXM4-80GB`).

    A UsageError with the nearest when there is none, or with the sizes when there are several.
    """
    cards: Mapping[str, Any] = _data()["cards"]
    if name in cards:
        return name
    word = _bare(name)
    found = gpu_of_driver(name) or next((known for known in cards if _bare(known) == word), "")
    if found:
        return found
    sizes = [known for known in cards if word and _bare(known.rpartition("-")[0]) == word]
    if len(sizes) == 1:
        hint = f"write {sizes[0]} if that is yours; of any other, give the memory as a budget (8GiB)"
        raise UsageError(f"gpu '{name}' comes in several sizes, and one of them is known", hint=hint)
    if sizes:
        raise UsageError(f"gpu '{name}' comes in several sizes", hint=f"choose one of {', '.join(sizes)}")
    raise UsageError(
        f"unknown gpu '{name}'",
        hint=f"{nearest(name, cards)}`vramplan list gpus` shows those that are known; for any other give its memory as"
        " a budget (24GiB)",
    )


def ship_context(name: str, *, context: int, workspaces: int, record: str, catalog: Path | None = None) -> Path:
    """Write what was recorded on the card `name` into the catalogue (this package's, or the file `catalog`).

    `record` is where the bytes come from: driver, versions, dates, how many runs. The other lines of the file stay as
    they are, and it is written whole or not at all.
    """
    file = catalog or _FILE
    lines = _lines(file)
    found = next((i for i, line in enumerate(lines) if f'{{"name": "{name}",' in line), None)
    if found is None:
        raise UsageError(f"{file} has no card '{name}'", hint="give a copy of vramplan/catalog/gpus.json")
    body, comma = lines[found].strip().removesuffix(","), lines[found].rstrip().endswith(",")
    try:
        card = json.loads(body) | {"context": context, "workspaces": workspaces, "record": record}
    except (ValueError, TypeError) as error:
        raise UsageError(f"{file}: the line of {name} is broken: {error}", hint="one card per line") from error
    lines[found] = f"  {json.dumps(card, ensure_ascii=False)}{',' if comma else ''}"
    try:
        write_whole(file, "\n".join(lines) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", hint="give --catalog a file of yours") from error
    for kept in (_data, _catalogued):
        kept.cache_clear()
    return file


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", hint="give a copy of the catalogue") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no text: {error}", hint="give a copy of the catalogue") from error


#: How drivers and people lengthen a name: sockets and kinds of memory.
_FORMS = ("sxm2", "sxm4", "sxm5", "sxm", "pcie", "hbm2e", "hbm3e", "hbm3", "hbm2")


def gpu_of_driver(title: str) -> str:
    """The catalogue's name of a card as its driver calls it (`NVIDIA A100-SXM4-80GB`); empty when it has none."""
    plain = _without_forms(title)
    cards: Mapping[str, Any] = _data()["cards"]
    return next((name for name, card in cards.items() if plain in (_plain(name), _plain(card["title"]))), "")


def _bare(name: str) -> str:
    """What people say of a card: `RTX 4090` is 4090, `A100 80G` is a10080gb."""
    return re.sub(r"(\d\d)g$", r"\1gb", _without_forms(name).replace("rtx", ""))


def _without_forms(name: str) -> str:
    return _plain("-".join(word for word in re.split(r"[^a-z0-9]+", name.lower()) if word not in _FORMS))


def _plain(name: str) -> str:
    """Lower case without separators or the maker's prefixes."""
    word = name.lower()
    for prefix in ("nvidia", "geforce", "tesla"):
        word = word.replace(prefix, "")
    return "".join(c for c in word if c.isalnum())
