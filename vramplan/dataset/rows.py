"""What a row of a data set says: how many tokens it has, or the text that is to be counted.

Formats are those that trainers read: already tokenised rows, lengths, plain text, prompt and completion, chats, and
the Alpaca format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vramplan.errors import UsageError

#: Columns that hold a number of tokens.
LENGTH_FIELDS = ("length", "lengths", "num_tokens", "n_tokens")
IDS_FIELD = "input_ids"
CHAT_FIELDS = ("messages", "conversations")
#: Every column that is looked for.
FIELDS = (IDS_FIELD, *LENGTH_FIELDS, *CHAT_FIELDS, "prompt", "completion", "text", "instruction", "input", "output")
#: What makes a file of lines from an array.
ONE_A_LINE = "write one object per line: jq -c '.[]' data.json > data.jsonl"
#: No sample is longer: 2^31 tokens would be gigabytes of text.
_LONGEST = 2**31

#: The prompts of tatsu-lab/stanford_alpaca, train.py (`PROMPT_DICT`); the answer follows.
_ALPACA = (
    "Below is an instruction that describes a task{more}. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}{input}\n\n### Response:"
)
_ALPACA_MORE = ", paired with an input that provides further context"
#: Who speaks in a ShareGPT conversation (`from`, `value`), as chat templates name it.
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class Malformed(Exception):
    """A row that holds no sample; the message says why."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """What to do about the file; empty where that is in no way special to this row."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text to be tokenised; the special tokens of a sample are added."""

    text: str


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages to be laid out by the tokenizer's chat template."""

    messages: Sequence[Mapping[str, Any]]


Sample = int | Text | Chat


def read_row(row: object, *, field: str, tokenizes: bool) -> Sample:
    """What `row` holds: its number of tokens, or what is to be tokenised.

    A row is a number, a list of token ids, a text, or a mapping with one of the known fields, `field` if it is named.
    Raises Malformed, and UsageError for text when there is no tokenizer.
    """
    if not isinstance(row, Mapping):
        _refuse_array(row)
        return _value(row, tokenizes=tokenizes)
    if field:
        if field not in row:
            raise Malformed(f"no field '{field}', only {_names(row)}")
        _refuse_null(row, [field])
        return _value(row[field], tokenizes=tokenizes)
    if row.get(IDS_FIELD) is not None:
        return _value(row[IDS_FIELD], tokenizes=tokenizes)
    sample = _sample(row)
    length = next((row[name] for name in LENGTH_FIELDS if row.get(name) is not None), None)
    if length is not None and not (tokenizes and sample):
        return _number(length)
    if sample is None:
        _refuse_null(row, FIELDS)
        raise Malformed(f"none of the known fields, only {_names(row)}")
    return _needs_tokenizer(sample, tokenizes=tokenizes)


def _refuse_array(row: object) -> None:
    """A chat may stand in a line by itself; a list of other objects is a whole file in one line."""
    if isinstance(row, list) and row and isinstance(row[0], Mapping) and not {"role", "from"} & row[0].keys():
        raise Malformed("an array, whose objects are no messages", hint=ONE_A_LINE)


def _refuse_null(row: Mapping[str, Any], fields: Sequence[str]) -> None:
    null = next((name for name in fields if name in row and row[name] is None), None)
    if null:
        raise Malformed(f"'{null}' is null")


def _names(row: Mapping[str, Any]) -> str:
    names = ", ".join(f"'{name}'" for name in list(row)[:8])
    return names[:200] or "an empty object"


def _value(value: object, *, tokenizes: bool) -> Sample:
    """A sample by itself."""
    if isinstance(value, str):
        return _needs_tokenizer(Text(_clean(value)), tokenizes=True) if tokenizes else _number(value)
    if isinstance(value, list):
        if value and isinstance(value[0], Mapping):
            return _needs_tokenizer(_chat(value), tokenizes=tokenizes)
        if any(type(token) is not int for token in value):
            raise Malformed("a list that holds other things than token ids")
        return _number(len(value))
    return _number(value)


def _number(value: object) -> int:
    """A number of tokens; written as text, too, and 12.0 for 12."""
    if isinstance(value, str):
        word = value[:40]
        try:
            value = float(word)
        except ValueError:
            raise Malformed(f"'{word}' is no number of tokens") from None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise Malformed(f"{str(value)[:40]} is no number of tokens")
    if value < 1:
        raise Malformed(f"{value} tokens")
    if value >= _LONGEST:
        raise Malformed(f"{str(value)[:40]} tokens are more than any sample has")
    return value


def _sample(row: Mapping[str, Any]) -> Text | Chat | None:
    """The text of a row, in the first of the known formats that it has."""
    for name in CHAT_FIELDS:
        if row.get(name) is not None:
            return _chat(row[name])
    prompt, completion = row.get("prompt"), row.get("completion")
    if prompt is not None and completion is not None:
        if isinstance(prompt, list) and isinstance(completion, list):
            return _chat([*prompt, *completion])
        return Text(_text("prompt", prompt) + _text("completion", completion))
    if row.get("text") is not None:
        return Text(_text("text", row["text"]))
    if row.get("instruction") is not None and row.get("output") is not None:
        return Text(_alpaca(row))
    return None


def _alpaca(row: Mapping[str, Any]) -> str:
    more = _text("input", row.get("input") or "")
    prompt = _ALPACA.format(
        more=_ALPACA_MORE if more else "",
        instruction=_text("instruction", row["instruction"]),
        input=f"\n\n### Input:\n{more}" if more else "",
    )
    return prompt + _text("output", row["output"])


def _chat(messages: object) -> Chat:
    if not isinstance(messages, list) or not messages:
        raise Malformed("messages are no list of messages")
    return Chat([_message(message) for message in messages])


def _message(message: object) -> Mapping[str, Any]:
    """A message with role and content; ShareGPT's names are translated."""
    if not isinstance(message, Mapping):
        raise Malformed("a message is no object")
    if "from" in message and "value" in message:
        role = _ROLES.get(str(message["from"]))
        if role is None:
            raise Malformed(f"a message is from '{str(message['from'])[:40]}', not from human, gpt or system")
        return {"role": role, "content": _text("value", message["value"])}
    if not isinstance(message.get("role"), str) or "content" not in message:
        raise Malformed(f"a message without role and content, only {_names(message)}")
    return message


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise Malformed(f"'{name}' is no text but {type(value).__name__}")
    return _clean(value)


def _clean(text: str) -> str:
    """`text`, if it can be encoded: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed("half of a surrogate pair, which is no text") from None
    return text


def _needs_tokenizer(sample: Text | Chat, *, tokenizes: bool) -> Text | Chat:
    if not tokenizes:
        raise UsageError(
            "the samples are text, and there is no tokenizer to count their tokens with",
            hint="give the model's tokenizer: --data FILE --tokenizer DIR, or a file of lengths",
        )
    return sample
