"""What can go wrong, each kind with the exit code that the command line gives it."""

import difflib
from collections.abc import Iterable


class VramplanError(Exception):
    """An expected failure: one line what is wrong with the value in it, one line hint that can be acted on.

    The hint is a note as well, so that a traceback in a notebook shows it.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class UsageError(VramplanError):
    """Asked wrongly, or bad input: unknown key, value, unit, name or file."""


class UnknownArchitecture(UsageError):
    """A config.json whose weights cannot be listed."""


class CannotRun(VramplanError):
    """Asked rightly, but this machine cannot: no GPU, a missing extra."""

    exit_code = 3


def may_not_read(error: PermissionError) -> UsageError:
    """The error for what is there, as far as can be told, and may not be read."""
    return UsageError(f"cannot read {error.filename}: {error.strerror}", hint="ask for the right to, or copy it")


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its kind's name when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def require_installed(what: str, libraries: Iterable[str], *, hint: str) -> None:
    """CannotRun, naming those that are missing, unless all `libraries` are installed; imports none of them."""
    from importlib.util import find_spec  # which the start of a command can do without

    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise CannotRun(f"{what} needs {', '.join(missing)}, which {verb} not installed", hint=hint)


#: What people say for words that are spelled otherwise here.
_SAID = {
    "gpu": "cuda",
    "fp32": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "fa2": "flash_attention_2",
    "4bit": "nf4",
    "8bit": "int8",
    "r": "rank",
    "target_modules": "targets",
    "max_length": "seq",
    "max_seq_length": "seq",
    "sequence_len": "seq",
    "gradient_accumulation_steps": "grad_accum",
    "per_device_train_batch_size": "batch",
    "micro_batch_size": "batch",
    "optim": "optimizer",
    "gradient_checkpointing": "checkpointing",
    "adam": "adamw_torch",
    "adamw": "adamw_torch",
}


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'q_proj'? ` when a known word is close to `word`, else the empty string; made to begin a hint."""
    words, said = list(known), word.lower()
    close = [other for other in words if other == _SAID.get(said)]
    close = close or difflib.get_close_matches(said, words, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'? " if close else ""


def unknown(what: str, word: str, known: Iterable[str], *, where: str = "") -> UsageError:
    """The error for a word outside a closed list: names it, suggests the nearest, lists what is allowed."""
    words = list(known)
    place = f" in {where}" if where else ""
    return UsageError(f"unknown {what} '{word}'{place}", hint=f"{nearest(word, words)}allowed: {', '.join(words)}")
