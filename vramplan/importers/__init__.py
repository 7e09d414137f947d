"""Importers: the configuration that somebody already has, of TRL, axolotl, LLaMA-Factory, torchtune or peft."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vramplan.importers.imported import Imported, Row, spelled
from vramplan.importers.keys import Format
from vramplan.importers.recognise import recognise
from vramplan.importers.untrusted import check_content

__all__ = ["Format", "Imported", "Row", "import_mapping", "recognise"]


def import_mapping(
    content: Mapping[str, Any],
    format: Format,
    *,
    where: str,
    base: Path,
    model: object = None,
    without: Collection[str] = (),
) -> Imported:
    """What a configuration of `format` says, assumes and leaves out, as the keys of a scenario.

    `where` names the file in errors, relative paths start at `base`, `model` stands in for the file's; keys `without`
    are read as if they were not there.
    """
    from vramplan.importers.axolotl import read_axolotl
    from vramplan.importers.llamafactory import read_llamafactory
    from vramplan.importers.peft import read_peft
    from vramplan.importers.torchtune import read_torchtune
    from vramplan.importers.trl import read_trl

    readers = {
        Format.TRL: read_trl,
        Format.AXOLOTL: read_axolotl,
        Format.LLAMAFACTORY: read_llamafactory,
        Format.TORCHTUNE: read_torchtune,
        Format.PEFT: read_peft,
    }
    found = readers[format](_less(check_content(content, where), without), where=where, base=base, model=model)
    left_out = (Row(key, spelled(content[key]), note="left out, as typed") for key in without if key in content)
    return replace(found, ignored=(*left_out, *found.ignored))


def _less(content: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}
