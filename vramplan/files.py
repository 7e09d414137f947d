"""Files are written whole or not at all; JSON that somebody else wrote is read within limits."""

import os
from collections.abc import Mapping
from pathlib import Path
from stat import S_IMODE
from typing import Any

from vramplan.errors import UsageError, may_not_read

#: No config.json, record or tokenizer_config.json comes near.
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
    """Put `content` in the place of `path`, whole or not at all. Raises OSError."""
    write_together({path: content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Put every content in the place of its path: into files beside all of them, then renamed. Raises OSError.

    A link stays one, and what it leads to is replaced, its rights kept; a device or a pipe is written to.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path, content in contents.items():
            place = path.resolve() if path.is_symlink() else path
            data = content.encode() if isinstance(content, str) else content
            if place.exists() and not place.is_file() and not place.is_dir():
                place.write_bytes(data)
            else:
                staged.append((_stage(place, data), place))
        for temporary, place in staged:
            temporary.replace(place)
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def _stage(place: Path, data: bytes) -> Path:
    """A new file beside `place` that holds `data`, with the rights of the file that it will replace."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.absolute().parent / f".{place.name[:100]}.{os.urandom(8).hex()}"
    try:
        with temporary.open("xb") as file:
            if place.is_file():
                temporary.chmod(S_IMODE(place.stat().st_mode))
            file.write(data)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def read_text(path: Path, most: int, *, hint: str, where: str = "") -> str:
    """The text of a file or pipe of at most `most` bytes, else a UsageError. Raises OSError where none can be read."""
    with path.open("rb") as file:
        data = file.read(most + 1)  # what a pipe holds is known once it is read
    if len(data) > most:
        raise UsageError(f"{where}{path} has more than {most // 2**20} MiB", hint=hint)
    try:
        return data.decode("utf-8-sig")  # Windows' editors put a mark before it
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise UsageError(f"{where}{path} is not UTF-8 text: {reason}", hint=hint) from error


def read_json(path: Path, *, hint: str, where: str = "") -> Any:
    """What a JSON file holds. Anything else is a UsageError with `hint`, its message after `where` (`"model: "`)."""
    import json

    try:
        return json.loads(read_text(path, _LONGEST, hint=hint, where=where))
    except OSError as error:
        raise UsageError(f"{where}cannot read {path}: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}{path} is not JSON: {error}", hint=hint) from error


def read_object(path: Path, *, hint: str, where: str = "") -> dict[str, Any]:
    """The object in a JSON file; any other file is a UsageError, as of `read_json`."""
    body = read_json(path, hint=hint, where=where)
    if not isinstance(body, dict):
        raise UsageError(f"{where}{path} holds {kind_of(body)}, not an object", hint=hint)
    return body


def kind_of(value: object) -> str:
    """What a file holds in place of a mapping, as people say it: `a list`, `text`, `nothing`."""
    words = {type(None): "nothing", str: "text", list: "a list", int: "a number", float: "a number"}
    return words.get(type(value), f"a {type(value).__name__}")
