"""Instruct models, mirrors and quantised copies of a catalogue model, told by their names alone."""

import re

from vramplan.catalog.models import CatalogEntry, catalog_entries

#: Words of a name behind which a model has its base's dimensions: what it was tuned for, how its weights are stored.
_FLAVOURS = frozenset(["instruct", "chat", "it", "hf", "base", "pt", "bnb", "4bit", "8bit", "fp16", "bf16"])
#: A release of the same model: `v0.3`, or year and month (`2407`).
_RELEASE = re.compile(r"v\d+(\.\d+)*|\d{4}")


def twin(repo: str) -> str | None:
    """The catalogue model whose dimensions a Hugging Face id's name says (`Meta-Llama-3-8B-Instruct`: llama-3-8b).

    None where the name has a word that could mean another size, another family or another release.
    """
    said = _words(repo.rpartition("/")[2])
    found = [entry.name for entry in catalog_entries().values() if _is_twin(said, entry)]
    return found[0] if len(found) == 1 else None


def plain_name(repo: str) -> str:
    """A model's name without the words that say nothing of its dimensions, to be compared with the catalogue's."""
    name = repo.rpartition("/")[2].lower()
    return "-".join(word for word in re.split("[-_]", name) if word not in _FLAVOURS)


def _is_twin(said: frozenset[str], entry: CatalogEntry) -> bool:
    owner, _, hub_name = entry.hub_id.partition("/")
    names = (_words(entry.name), _words(hub_name))
    releases = _releases(names[0] | names[1])
    if releases and not _releases(said) <= releases:
        return False
    # Words that only the id's name has must say nothing of dimensions, and so must those that only the entry's has.
    free = _FLAVOURS | _words(owner) | (frozenset() if releases else _releases(said))
    return any(said - own <= free and own - said <= _FLAVOURS for own in names)


def _releases(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in words if _RELEASE.fullmatch(word))


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split("[-_]", name.lower()))
