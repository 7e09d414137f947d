"""Files are written whole or not at all; JSON that somebody else wrote is read within limits."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from vramplan.errors import UsageError

#: No config.json, adapter_config.json or tokenizer_config.json comes near.
_LONGEST = 64 * 2**20


def write_whole(path: Path, content: str | bytes) -> None:
    """Put `content` in the place of `path`: into a temporary file beside it, which is then renamed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_object(path: Path, *, hint: str, where: str = "") -> dict[str, Any]:
    """The object in a JSON file. Anything else is a UsageError with `hint`, its message after `where` (`"model: "`)."""
    try:
        if path.stat().st_size > _LONGEST:
            raise UsageError(f"{where}{path} has more than {_LONGEST // 2**20} MiB", hint=hint)
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{where}cannot read {path}: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}{path} is not JSON: {error}", hint=hint) from error
    if not isinstance(body, dict):
        raise UsageError(f"{where}{path} holds a {type(body).__name__}, not an object", hint=hint)
    return body
