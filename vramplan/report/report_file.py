"""Writing what a report renders."""

from collections.abc import Iterable
from pathlib import Path

from vramplan import files
from vramplan.errors import UsageError
from vramplan.units import human


def check_place(path: Path, *, option: str) -> None:
    """Refuse a file that could not be written, before the work begins; the error names the flag `option`."""
    if what := "it is a directory" if path.is_dir() else _refusal(path.parent):
        raise UsageError(f"{option}: cannot write '{path}': {what}", hint="choose another place")


def check_directory(path: Path, *, option: str) -> None:
    """The same of a directory for several files, which is made where there is none."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if what := _refusal(there):
        raise UsageError(f"{option}: cannot write into '{path}': {what}", hint="choose another place")


def _refusal(directory: Path) -> str:
    """Why no file can be made in a directory, empty where one can. Rights do not tell: root has them in /proc."""
    import tempfile

    if not directory.is_dir():
        return f"there is no directory '{directory}'"
    try:
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


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
