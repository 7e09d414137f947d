"""A config.json read key by key: the wrong type, a size out of range or a missing key stops with the key's name."""

from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

from vramplan.errors import UsageError

#: Larger than any dimension of a published model (Gemma 3's vocabulary: 2**18) and small enough that nothing overflows.
MAX_SIZE = 2**31 - 1
#: The deepest published decoder has 126 layers (Llama 3.1 405B).
MAX_LAYERS = 10_000


class Fields:
    """The values of one config.json. Every reader takes the key's spellings, transformers' own first."""

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self.config = config
        self.name = name

    def has(self, *keys: str) -> bool:
        """Whether one of the spellings is there with a value other than null."""
        return any(self.config.get(key) is not None for key in keys)

    def size(self, *keys: str, missing: int | None = None, null: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`.

        `missing` is the library's default for a key that is left out, `null` what it makes of an explicit null;
        without them the key must be there.
        """
        key, value = self._find(keys)
        if value is _ABSENT and missing is not None:
            return missing
        if value is None and null is not None:
            return null
        if value is _ABSENT:
            raise self._missing(key)
        limit = MAX_LAYERS if key in _DEPTHS else MAX_SIZE
        if type(value) is not int or not least <= value <= limit:
            raise self.wrong(key, value, f"a whole number from {least} to {limit:,}")
        return value

    def optional_size(self, *keys: str, missing: int | None = None) -> int:
        """A whole number, or 0 where the library reads null as "not used" (sliding windows, query ranks)."""
        if not self.has(*keys) and (missing is None or any(key in self.config for key in keys)):
            return 0
        return self.size(*keys, missing=missing)

    def flag(self, *keys: str, missing: bool) -> bool:
        """True or false; `missing` is the library's default."""
        key, value = self._find(keys)
        if value is _ABSENT or (value is None and not missing):
            return missing
        if type(value) is not bool:
            raise self.wrong(key, value, "true or false")
        return value

    def number(self, key: str, *, missing: float) -> float:
        """A number; null reads as 0."""
        value = self.config.get(key, missing)
        if value is None:
            return 0.0
        if type(value) not in (int, float) or value != value or abs(value) > MAX_SIZE:
            raise self.wrong(key, value, "a number")
        return float(value)

    def word(self, key: str, *, missing: str) -> str:
        """A string; `missing` is the library's default."""
        value = self.config.get(key, missing)
        if not isinstance(value, str):
            raise self.wrong(key, value, "a string")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty when left out or null."""
        value = self.config.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
            raise self.wrong(key, value, "a list of strings")
        return tuple(value)

    def sizes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers from 0; empty when left out or null."""
        value = self.config.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(type(item) is int and item >= 0 for item in value):
            raise self.wrong(key, value, "a list of whole numbers")
        return tuple(value)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A mapping; empty when left out or null."""
        value = self.config.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "a mapping")
        return value

    def divides(self, part_key: str, part: int, whole_key: str, whole: int) -> int:
        """`whole // part`; refused when it leaves a rest."""
        if whole % part:
            raise self.wrong(part_key, part, f"a divisor of {whole_key} ({whole})")
        return whole // part

    def at_least_one(self, key: str, value: int, derived: int) -> int:
        """`derived`, a size that follows from `key`; refused when nothing is left."""
        if derived < 1:
            raise self.wrong(key, value, "small enough to leave every head at least one element")
        return derived

    def wrong(self, key: str, value: object, wanted: str) -> UsageError:
        """The error for a key whose value cannot be."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return UsageError(f"'{key}' is {shown} in the configuration of {self.name}", hint=f"it must be {wanted}")

    def _find(self, keys: tuple[str, ...]) -> tuple[str, Any]:
        """The spelling that is there, with its value; two spellings that disagree are refused."""
        there = [key for key in keys if key in self.config]
        if not there:
            self._refuse_misspelt(keys)
        if len(there) > 1 and len({repr(self.config[key]) for key in there}) > 1:
            raise UsageError(
                f"{' and '.join(map(repr, there))} disagree in the configuration of {self.name}",
                hint="they are two spellings of one thing: leave one",
            )
        return (there[0], self.config[there[0]]) if there else (keys[0], _ABSENT)

    def _refuse_misspelt(self, keys: tuple[str, ...]) -> None:
        """Stop when a key that is left out is there under another name: its default would be a wrong size."""
        for key in keys:
            others = (word for word in self.config if word in _SYNONYMS.get(key, ()) or _slip(key, word))
            if other := next(others, None):
                raise UsageError(
                    f"unknown key '{other}' in the configuration of {self.name}", hint=f"did you mean '{key}'?"
                )

    def _missing(self, key: str) -> UsageError:
        return UsageError(
            f"'{key}' is missing in the configuration of {self.name}",
            hint="the weights cannot be listed without it: give the whole config.json",
        )


def _slip(key: str, word: str) -> bool:
    """Whether `word` is `key` with a letter too many, too few or out of place."""
    if word == key or abs(len(word) - len(key)) > 1 or len(set(word) ^ set(key)) > 1:
        return False
    return SequenceMatcher(None, key, word).ratio() >= 0.9


_ABSENT = object()
#: What other families and trainers call the same thing.
_SYNONYMS = {
    "hidden_size": ("hidden_dim", "hidden_dimension"),
    "num_key_value_heads": ("num_kv_heads", "n_kv_heads", "n_head_kv", "num_query_groups", "multi_query_group_num"),
    "head_dim": ("head_size", "kv_channels", "attention_head_dim"),
}
_DEPTHS = ("num_hidden_layers", "n_layer")
