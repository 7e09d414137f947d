"""adapter_config.json read from the disk."""

import json
from pathlib import Path
from typing import Any

from vramplan.errors import UsageError

#: peft's own files have about 1 KB; the longest lists of target modules some 100 KB.
_LARGEST = 4 * 2**20


def read_adapter(file: Path) -> dict[str, Any]:
    """The mapping in an adapter_config.json; anything else is a UsageError."""
    try:
        if file.stat().st_size > _LARGEST:
            raise UsageError(f"{file} has more than 4 MiB", hint="give the adapter_config.json that peft wrote")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {error}", hint="give the adapter_config.json that peft wrote") from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", hint="give an adapter's directory or file") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} holds a {type(content).__name__}, not an object", hint="give an adapter_config.json")
    return content
