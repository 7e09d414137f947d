"""A trainer's file while it is being read: every key is taken, ignored, refused or warned about, and none is lost."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from vramplan.errors import UsageError, nearest
from vramplan.importers.imported import HARMLESS, Imported, Row, Warned, spelled
from vramplan.importers.keys import Line
from vramplan.importers.values import as_dtype, as_flag, as_names, as_number, is_null
from vramplan.importers.vocabulary.base import Vocabulary
from vramplan.scenario import DType
from vramplan.scenario_file import override
from vramplan.scenario_schema import LARGEST_COUNT

_ANOTHER_RUN = "give the configuration of an SFT run; with a model, --stack trl-dpo and --method merge are others"


class Source:
    """The keys of one file, what has become of each so far, and the scenario's keys that follow from them."""

    def __init__(self, content: Mapping[str, Any], vocabulary: Vocabulary, where: str) -> None:
        self.where = where
        self.vocabulary = vocabulary
        self._content = content
        self._taken: set[str] = set()
        self._set: dict[str, Any] = {}
        self._read: list[Row] = []
        self._assumed: list[Row] = []
        self._ignored: list[Row] = []
        self._warned: list[Warned] = []
        self._denied: set[str] = set()

    # What the file says

    def given(self, key: str) -> Any:
        """The value of a key, None when it is absent or null. The key counts as taken."""
        self._taken.add(key)
        value = self._content.get(key)
        return None if is_null(value) else value

    def has(self, key: str) -> bool:
        """Whether the file has the key, whoever takes it."""
        return key in self._content

    def written_null(self, key: str) -> bool:
        """Whether the file has the key, and says null."""
        return key in self._content and is_null(self._content[key])

    def pass_on(self, key: str) -> None:
        """Leave a key that was looked at to what `finish` says about keys that nobody took."""
        self._taken.discard(key)

    def flag(self, key: str) -> bool | None:
        """True or false; None when the key is absent."""
        value = self.given(key)
        if value is None:
            return None
        flag = as_flag(value)
        if flag is None:
            self.refuse(key, "is neither true nor false", hint=f"{key}: true")
        return flag

    def count(self, key: str) -> int | None:
        """A whole number from 1 up; None when the key is absent."""
        number = self.number(key)
        if number is None:
            return None
        if number != int(number) or not 1 <= number <= LARGEST_COUNT:
            self.refuse(key, "is not a count", hint=f"a whole number from 1 to {LARGEST_COUNT}")
        return int(number)

    def number(self, key: str) -> float | None:
        """A number, also one written as a string; None when the key is absent."""
        value = self.given(key)
        if value is None:
            return None
        number = as_number(value)
        if number is None:
            self.refuse(key, "is not a number", hint=f"{key}: 1")
        return number

    def word(self, key: str) -> str | None:
        """A string; None when the key is absent."""
        value = self.given(key)
        if value is not None and not isinstance(value, str):
            unquoted = f"YAML reads a bare no as false and a bare yes as true: quote it, such as {key}: 'no'"
            self.refuse(key, "is not a word", hint=unquoted if isinstance(value, bool) else "write one string")
        return value.strip() if value else None

    def names(self, key: str) -> list[str] | None:
        """Names, from a list or from a string with commas; None when the key is absent."""
        value = self.given(key)
        if value is None:
            return None
        names = as_names(value)
        if not names:
            self.refuse(key, "is not a list of names", hint=f"{key}: [q_proj, v_proj]")
        return names

    def dtype(self, key: str) -> DType | None:
        """An element type; None when the key is absent."""
        value = self.given(key)
        if value is None:
            return None
        dtype = as_dtype(value)
        if dtype is None:
            self.refuse(key, "is not an element type that is known", hint="bfloat16, float16 or float32")
        return dtype

    # What follows

    def read(self, keys: str | Iterable[str], ours: str, value: Any, note: str = "") -> None:
        """Set the scenario's `ours`, because of these keys of the file."""
        names = [keys] if isinstance(keys, str) else [key for key in keys if self.given(key) is not None]
        self._set[ours] = value
        written = ", ".join(spelled(self.given(name)) for name in names)
        self._read.append(Row(", ".join(names), written, ours, spelled(value), note))

    def assume(self, ours: str, value: Any, why: str) -> None:
        """Set the scenario's `ours` to what the library does when the file does not say."""
        self._set[ours] = value
        self._assumed.append(Row("", "", ours, spelled(value), why))

    def take(self, key: str, ours: str, value: Any, why: str, *, note: str = "") -> None:
        """`read` when the file has the key, else `assume` with its default's origin."""
        if self.given(key) is None:
            self.assume(ours, value, why)
        else:
            self.read(key, ours, value, note)

    def plain(self, line: Line) -> Any:
        """One line of the table of keys: read, or assumed with the library's default."""
        spelling = line.spelled[self.vocabulary.format]
        value = self.count(spelling.key) if line.whole else self.number(spelling.key)
        if value is None and spelling.default is None:
            raise UsageError(
                f"{self.where}: no '{spelling.key}', which {self.vocabulary.library} requires",
                hint=f"add '{spelling.key}', or set {line.ours} with a flag",
            )
        found = spelling.default if value is None else value
        self.take(spelling.key, line.ours, found, f"default of {spelling.key}, {spelling.origin}")
        return found

    def ignore(self, keys: str | Iterable[str], why: str) -> None:
        """Note that these keys change no memory, those of them that the file has."""
        for key in [keys] if isinstance(keys, str) else keys:
            if (value := self.given(key)) is not None:
                self._ignored.append(Row(key, spelled(value), note=why))

    def warn(self, text: str, *, ours: str = "", above: int = 0, above_token: int = 0) -> None:
        """Say what the scenario does not hold; `ours` is the key whose flag would settle it.

        `above` are the bytes that it may save, `above_token` those for each token of a micro-batch.
        """
        self._warned.append(Warned(text, ours, above, above_token))

    def deny(self, text: str) -> None:
        """Take back a warning that a prediction of the scenario may have, and that is not true of the file."""
        self._denied.add(text)

    def refuse(self, key: str, why: str, *, hint: str) -> NoReturn:
        """End with a UsageError that names the file, the key and its value."""
        raise UsageError(f"{self.where}: {key}: {spelled(self.given(key))} {why}", hint=hint)

    def finish(self) -> Imported:
        """Everything, once each key that nobody asked for has been ignored, refused or warned about."""
        for key, value in self._content.items():
            if key not in self._taken and not is_null(value):
                self._rest(str(key), value)
        mapping = override({}, self._set)
        vocabulary = self.vocabulary
        return Imported(
            format=vocabulary.title,
            library=vocabulary.library,
            where=self.where,
            mapping=mapping,
            read=tuple(self._read),
            assumed=tuple(self._assumed),
            ignored=tuple(self._ignored),
            warned=tuple(self._warned),
            lacks=vocabulary.lacks,
            denied=frozenset(self._denied),
        )

    def guard(self) -> None:
        """Refuse what asks for several GPUs or for another kind of training, before anything else is read."""
        asked = {
            key: value for key, value in self._content.items() if not is_null(value) and as_flag(value) is not False
        }
        several = [
            key
            for key in asked
            if key in self.vocabulary.several_gpus and as_number(asked[key]) != 1  # true is no number
        ]
        if several:
            flags = " ".join(f"--set {key}=null" for key in dict.fromkeys(key.partition(".")[0] for key in several))
            self.refuse(
                several[0],
                "asks for several GPUs; vramplan plans for one",
                hint=f"{flags} reads it for one GPU: the whole run, of which ZeRO and FSDP leave each device a share",
            )
        for key in asked:
            if key in self.vocabulary.refused:
                without = f"--set {key}=null reads the file without it, as a plain training"
                hint = without if key in self.vocabulary.features else _ANOTHER_RUN
                self.refuse(key, f"is {self.vocabulary.refused[key]}", hint=hint)

    def _rest(self, key: str, value: Any) -> None:
        vocabulary = self.vocabulary
        off = as_flag(value) is False or as_number(value) == 0
        if key in vocabulary.unmodelled:
            if off:
                self.ignore(key, "switched off")
            else:
                self.warn(f"{key}: {spelled(value)} {vocabulary.unmodelled[key]}; not in the prediction")
        elif key in vocabulary.several_gpus or key in vocabulary.refused:
            self.ignore(key, "switched off")
        elif key in vocabulary.harmless or key.startswith(vocabulary.harmless_prefixes):
            self.ignore(key, HARMLESS)
        else:
            hint = nearest(key, vocabulary.known).removesuffix(" ")
            self.warn(
                f"unknown key '{key}: {spelled(value)}' of {vocabulary.title}: whether it changes memory is not known"
                + (f"; {hint}" if hint else "")
            )
