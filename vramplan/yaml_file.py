"""YAML files as mappings, more strictly than PyYAML reads them."""

import json
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import yaml

from vramplan.errors import UsageError
from vramplan.files import kind_of, read_text

#: No configuration is longer: the matrices of scenarios/ have 2 KiB, trainers' examples 5.
_LONGEST = 2**20
#: Keys that `<<` may put into one mapping; aliases of aliases grow by powers.
_MOST_MERGED = 10_000
_YAML = "tag:yaml.org,2002:"
_MERGE = f"{_YAML}merge"
_NO_JSON = frozenset(f"{_YAML}{kind}" for kind in ("binary", "set", "omap", "pairs"))
#: A number as JSON and YAML 1.2 write it, where PyYAML (YAML 1.1) wants a point and a sign: `1e-05` is text to it.
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
#: To YAML 1.1 `0512` is 330 and `1:30` is 90.
_ANOTHER_NUMBER = re.compile(r"[-+]?0[0-9_]+$|.*:")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key written twice is an error instead of the last one winning, and that
    what it makes is what JSON can hold."""

    yaml_constructors: ClassVar = {
        tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag not in _NO_JSON
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[int] = set()

    def construct_document(self, node: yaml.Node) -> Any:
        """What a file holds, made from the inside out: what holds itself, by an anchor, is an error that way."""
        return self.construct_object(node, deep=True)

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

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        """The text of `node`; half a character (`"\\ud83d"`) is none, and could not be printed."""
        text = str(self.construct_scalar(node))
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise yaml.constructor.ConstructorError(None, None, "half of a surrogate pair", node.start_mark)
        return text

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        """The whole number of `node`; where only YAML 1.1 sees one, and another than was meant, the text."""
        text = str(self.construct_scalar(node))
        return text if _ANOTHER_NUMBER.match(text) else super().construct_yaml_int(node)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes the texts that `_Loader` would take for numbers."""


_Loader.add_constructor(f"{_YAML}int", _Loader.construct_yaml_int)
for _text in ("str", "timestamp"):  # a date is the text that it was written as
    _Loader.add_constructor(f"{_YAML}{_text}", _Loader.construct_yaml_str)
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(f"{_YAML}float", _EXPONENT, list("-+0123456789"))


def parse_yaml(text: str) -> Any:
    """What a YAML text says; what is JSON as JSON says it, with its tabs and its characters in two halves.

    Raises what PyYAML raises: of the two, it alone knows where in the text something is wrong.
    """
    if text.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            found = json.loads(text, object_pairs_hook=_unique)
            json.dumps(found, ensure_ascii=False).encode()  # no half characters
            return found
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is written twice")
    return found


def yaml_text(mapping: Mapping[str, Any]) -> str:
    """The mapping as YAML, its keys in their order."""
    return yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        text = read_text(path, _LONGEST, hint="give a scenario file, or a trainer's configuration, in UTF-8")
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {path}", hint="`vramplan list scenarios` shows the shipped ones") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give a scenario file in YAML") from error
    try:
        content = parse_yaml(text)
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
