"""YAML files as mappings, more strictly than PyYAML reads them."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from vramplan.errors import UsageError
from vramplan.files import kind_of

#: No configuration is longer: the matrices of scenarios/ have 2 KiB, trainers' examples 5.
_LONGEST = 2**20
#: Keys that `<<` may put into one mapping; aliases of aliases grow by powers.
_MOST_MERGED = 10_000
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key written twice is an error instead of the last one winning."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what `<<` names into `node`, unless that is more than anybody writes."""
        named = [value for key, value in node.value if key.tag == _MERGE]
        parts = [part for value in named for part in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
        size = 0
        for part in parts:
            if isinstance(part, yaml.MappingNode):
                self.flatten_mapping(part)
                size += len(part.value)
            if size > _MOST_MERGED:
                raise yaml.constructor.ConstructorError(None, None, "'<<' names too many keys", node.start_mark)
        super().flatten_mapping(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of `node`."""
        if id(node) not in self._checked:  # an anchored mapping comes again, with what was merged into it
            self._checked.add(id(node))
            written = [key for key, _ in node.value if key.tag != _MERGE]
            seen: set[Hashable] = set()
            for at, key in [(key.start_mark, self.construct_object(key, deep=True)) for key in written]:
                if isinstance(key, Hashable) and key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is written twice", at)
                seen |= {key} if isinstance(key, Hashable) else set()
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        if path.stat().st_size > _LONGEST:
            raise UsageError(f"{path} has more than 1 MiB", hint="give a scenario file, or a trainer's configuration")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {path}", hint="`vramplan list scenarios` shows the shipped ones") from error
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise UsageError(f"{path} is not UTF-8 text: {reason}", hint="save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give a scenario file in YAML") from error
    try:
        content = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        hint = "check the indentation and the quotes"
        raise UsageError(f"{path} is not YAML: {_reason(error)}", hint=hint) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds {kind_of(content)}, not a scenario", hint="begin with 'model: llama-2-7b'")
    return content


def _reason(error: Exception) -> str:
    """What is wrong, and in which line of the file."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())
    words = f"{getattr(error, 'context', None) or ''} {problem}"
    return f"line {mark.line + 1}, column {mark.column + 1}: {' '.join(words.split())}"
