"""What is known of a format beside the keys that its importer reads."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vramplan.importers.keys import Format


class Vocabulary(NamedTuple):
    """What is known of one format beside the keys that its importer reads."""

    format: Format
    title: str
    library: str
    decisive: frozenset[str]
    """Keys that no other format has: any of them tells which one a file is."""
    harmless: frozenset[str]
    """Keys that change no memory of a training step."""
    harmless_prefixes: tuple[str, ...]
    unmodelled: Mapping[str, str]
    """Keys that change memory in a way that a scenario cannot say -> what they do."""
    refused: Mapping[str, str]
    """Keys of another kind of training -> which."""
    features: frozenset[str]
    """Those of `refused` without which the rest of the file is a training that can be read."""
    several_gpus: frozenset[str]
    lacks: frozenset[str]
    """Changes that save memory (predict/changes.py) and that nothing in the format can ask for."""
    known: tuple[str, ...]
    """Keys that a misspelt one is compared with."""


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def vocabulary(
    format: Format,
    title: str,
    library: str,
    *,
    decisive: str,
    read: str,
    harmless: frozenset[str],
    prefixes: str = "",
    unmodelled: Mapping[str, str],
    refused: Mapping[str, str],
    features: str = "",
    several_gpus: str,
    lacks: Iterable[str] = (),
) -> Vocabulary:
    """A format's vocabulary; `read` are the keys that its importer asks for, words are written as one text."""
    known = (*sorted(words(read) | words(decisive)), *sorted(unmodelled), *sorted(harmless))
    return Vocabulary(
        format,
        title,
        library,
        words(decisive),
        harmless,
        tuple(prefixes.split()),
        unmodelled,
        refused,
        words(features),
        words(several_gpus),
        frozenset(lacks),
        known,
    )
