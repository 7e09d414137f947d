"""Writing what a report renders."""

from pathlib import Path

from vramplan import files
from vramplan.errors import UsageError


def write_whole(path: Path, content: bytes, *, option: str) -> None:
    """`files.write_whole`, with an error that names the flag `option`."""
    try:
        files.write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{option}: cannot write '{path}': {error.strerror}", hint="choose another place") from error
