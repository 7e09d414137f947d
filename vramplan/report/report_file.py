"""Writing what a report renders."""

import os
from collections.abc import Iterable
from pathlib import Path

from vramplan import files
from vramplan.errors import UsageError
from vramplan.units import human


def check_place(path: Path, *, option: str) -> None:
    """Refuse a file that could not be written, before the work begins; the error names the flag `option`."""
    if path.is_dir():
        what = "it is a directory"
    elif not path.parent.is_dir():
        what = f"there is no directory '{path.parent}'"
    elif not os.access(path.parent, os.W_OK):
        what = "permission denied"
    else:
        return
    raise UsageError(f"{option}: cannot write '{path}': {what}", hint="choose another place")


def write_whole(path: Path, content: bytes, *, option: str) -> None:
    """`files.write_whole`, with an error that names the flag `option`."""
    try:
        files.write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{option}: cannot write '{path}': {error.strerror}", hint="choose another place") from error


def write_rendered(rendered: Iterable[tuple[str, Path, bytes]]) -> list[str]:
    """Write each file, given with the flag that asked for it, once all of them are rendered; the lines that say so."""
    ready = list(rendered)
    for option, path, content in ready:
        write_whole(path, content, option=option)
    return [f"wrote {path} ({human(len(content))})" for _, path, content in ready]
