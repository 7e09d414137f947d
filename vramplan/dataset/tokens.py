"""Counting a text's tokens with a tokenizer on the disk, special tokens included."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vramplan.dataset.rows import Chat, Malformed, Text
from vramplan.errors import CannotRun, UsageError
from vramplan.files import read_object

_HINT = "give the directory that holds the model's tokenizer.json"


class Tokens:
    """A fast tokenizer (`tokenizer.json`) and what its configuration says about chats and the end of a text.

    As TRL's SFTTrainer has it (1.16, sft_trainer.py): a text ends with the end-of-sequence token, chats are laid out
    by the chat template, and neither is truncated or padded yet.
    """

    def __init__(self, place: Path) -> None:
        file = place / "tokenizer.json" if place.is_dir() else place
        self._place = place
        self._tokenizer = _load(file, place)
        self._configuration = _configuration(file.parent)
        self._end = _word(self._configuration.get("eos_token"))
        self._template = _chat_template(self._configuration, file.parent)

    def count(self, samples: Sequence[Text | Chat]) -> list[int | Malformed]:
        """How many tokens each sample has; a Malformed for a chat that the template refuses."""
        texts = [self._laid_out(sample) for sample in samples]
        found: list[int | Malformed] = [text if isinstance(text, Malformed) else 0 for text in texts]
        for kind in (Text, Chat):
            places = [i for i, sample in enumerate(samples) if isinstance(sample, kind) and texts[i] is not found[i]]
            # A chat template writes its special tokens itself.
            counted = self._tokenizer.encode_batch_fast([texts[i] for i in places], add_special_tokens=kind is Text)
            for i, encoding in zip(places, counted, strict=True):
                found[i] = len(encoding) or Malformed("no tokens")
        return found

    def _laid_out(self, sample: Text | Chat) -> str | Malformed:
        if isinstance(sample, Chat):
            return self._chat(sample)
        return sample.text if sample.text.endswith(self._end) else sample.text + self._end

    def _chat(self, chat: Chat) -> str | Malformed:
        if not self._template:
            raise UsageError(
                f"the samples are chats, and the tokenizer in {self._place} has no chat template",
                hint="give the tokenizer of the chat model, or data with a 'text' field",
            )
        render, failures = _renderer()
        named = {name: _word(self._configuration.get(name)) for name in ("bos_token", "eos_token", "unk_token")}
        try:
            (text,), _ = render([chat.messages], chat_template=self._template, **named)
            text.encode()
        except failures as error:
            return Malformed(f"the chat template refuses it: {' '.join(str(error).split())[:120]}")
        return str(text)


def _load(file: Path, place: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise CannotRun(
            "counting tokens needs the tokenizers library, which is not installed",
            hint="pip install 'vramplan[data]', or give --lengths FILE",
        ) from error
    if not file.is_file():
        raise UsageError(f"--tokenizer: there is no tokenizer.json in {place}", hint=_HINT)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--tokenizer: cannot read {file}: {reason}", hint=_HINT) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _configuration(directory: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; nothing where neither is there."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = directory / name
        if not file.is_file():
            continue
        found |= read_object(file, where="--tokenizer: ", hint=_HINT)
    return found


def _chat_template(configuration: dict[str, Any], directory: Path) -> str:
    """The template, from its own file or the configuration; of several the one called `default`; empty for none."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"--tokenizer: cannot read {file}: {error}", hint=_HINT) from error
    found = configuration.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def _word(token: object) -> str:
    """A special token as the configuration has it: a word, or an object with its `content`; empty for none."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _renderer() -> tuple[Any, tuple[type[Exception], ...]]:
    """transformers' own rendering, in a sandbox, and what a template may fail with. Does not import torch."""
    try:
        import jinja2
        from transformers.utils.chat_template_utils import render_jinja_template
    except ImportError as error:
        raise CannotRun(
            "chat templates need transformers and jinja2, which are not installed",
            hint="pip install 'vramplan[data]', or give --lengths FILE",
        ) from error
    return render_jinja_template, (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError)
