"""Files are written whole or not at all; JSON that somebody else wrote is read within limits."""

import os
from pathlib import Path
from typing import Any

from vramplan.errors import UsageError, may_not_read

#: No config.json, adapter_config.json or tokenizer_config.json comes near.
_LONGEST = 64 * 2**20


def user_path(text: str) -> Path:
    """The path that somebody typed, `~` expanded; a UsageError for one that no file can have. An argparse `type`."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except PermissionError as error:
        raise may_not_read(error) from error
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user's home, a zero byte
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"'{shown}' is no path: {reason}", hint="name a file or directory") from error
    return path


def write_whole(path: Path, content: str | bytes) -> None:
    """Put `content` in the place of `path`: into a temporary file beside it, which is then renamed. Raises OSError.

    A link stays one, and what it leads to is replaced; a device or a pipe is written to.
    """
    import tempfile  # every command imports this module, and few write

    content = content.encode() if isinstance(content, str) else content
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_object(path: Path, *, hint: str, where: str = "") -> dict[str, Any]:
    """The object in a JSON file. Anything else is a UsageError with `hint`, its message after `where` (`"model: "`)."""
    import json

    try:
        if path.stat().st_size > _LONGEST:
            raise UsageError(f"{where}{path} has more than {_LONGEST // 2**20} MiB", hint=hint)
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{where}cannot read {path}: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}{path} is not JSON: {error}", hint=hint) from error
    if not isinstance(body, dict):
        raise UsageError(f"{where}{path} holds {kind_of(body)}, not an object", hint=hint)
    return body


def kind_of(value: object) -> str:
    """What a file holds in place of a mapping, as people say it: `a list`, `text`, `nothing`."""
    words = {type(None): "nothing", str: "text", list: "a list", int: "a number", float: "a number"}
    return words.get(type(value), f"a {type(value).__name__}")
