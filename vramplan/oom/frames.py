"""What a stack tells: in which phase of a run it stands, and what the memory was for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from vramplan.oom.stack_rules import GENERAL_PURPOSES, MOMENTS, PURPOSES, Moment, Purpose


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a stack."""

    file: str
    line: int
    function: str
    code: str = ""
    """The source line, where the stack shows it."""

    @property
    def place(self) -> str:
        """`modeling_llama.py:123 forward`, for people."""
        return f"{self.path.rpartition('/')[2]}:{self.line} {self.function}"

    @property
    def path(self) -> str:
        """The file with forward slashes."""
        return self.file.replace("\\", "/")


#: The outermost frame first, as a traceback prints it.
Stack = Sequence[Frame]
UNKNOWN = Purpose("unknown", None)
UNKNOWN_MOMENT = Moment("unknown", None)


def purpose(stack: Stack) -> Purpose:
    """What the innermost frame that says something says; `UNKNOWN` when none does."""
    told = (_purpose(frame, general) for general in (False, True) for frame in reversed(stack))
    return next(filter(None, told), UNKNOWN)


@lru_cache(maxsize=65_536)  # a snapshot has 100,000 stacks of a few hundred frames
def _purpose(frame: Frame, general: bool) -> Purpose | None:
    file, rules = frame.path, GENERAL_PURPOSES if general else PURPOSES
    return next((said for rule, said in rules if rule.meets(file, frame.function, frame.code)), None)


def moment(stack: Stack) -> Moment:
    """The phase that the stack stands in; `UNKNOWN_MOMENT` when none of its frames says it."""
    for rule, said in MOMENTS:
        if any(rule.meets(frame.path, frame.function, frame.code) for frame in stack):
            return said
    return UNKNOWN_MOMENT


def owner(stack: Stack) -> Frame | None:
    """The innermost frame of Python code that is not torch's own; the innermost of all where torch is all there is."""
    python = [frame for frame in stack if frame.file.endswith(".py") or frame.file.startswith("<")]
    own = [frame for frame in python if "/torch/" not in frame.path]
    found = own or python
    return found[-1] if found else None
