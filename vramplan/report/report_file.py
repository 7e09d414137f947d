"""Writing what a report renders: a file is there whole or not at all."""

import os
import tempfile
from pathlib import Path

from vramplan.errors import UsageError


def write_whole(path: Path, content: bytes, *, option: str) -> None:
    """Put `content` in the place of `path`, through a temporary file beside it; `option` names the flag in errors."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = ""
    except OSError as error:
        raise UsageError(f"{option}: cannot write '{path}': {error.strerror}", hint="choose another place") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
