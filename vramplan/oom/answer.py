"""The answer to "why did I run out of memory?": what the evidence says, and what the scenario's prediction adds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from msgspec.structs import replace

from vramplan.allocator_settings import USUAL_VARIABLE
from vramplan.catalog.gpus import gpu, gpu_names
from vramplan.errors import UsageError
from vramplan.oom.against_scenario import Against, against
from vramplan.oom.frames import UNKNOWN, UNKNOWN_MOMENT, moment, owner, purpose
from vramplan.oom.log import Recognised, Reported, read_log
from vramplan.oom.plain_pickle import Limits
from vramplan.oom.remedies import Judgement, Remedy, fragmentation, remedies
from vramplan.oom.shortage import Cause, Shortage, of_message
from vramplan.oom.snapshot import read_snapshot
from vramplan.oom.stack_rules import Moment, Purpose
from vramplan.oom.text_stream import MARK, text_stream
from vramplan.oom.usage import Usage, usage
from vramplan.record import SCHEMA
from vramplan.scenario import Scenario
from vramplan.units import human


@dataclass(frozen=True)
class Explanation:
    """Why memory ran out."""

    source: str
    """What was read, as the user named it."""
    shortage: Shortage | None
    """The failed request; None when the evidence is a failure of another kind, or a snapshot without one."""
    moment: Moment
    purpose: Purpose
    place: str
    """The innermost Python frame that is not torch's; empty without a stack."""
    gpus: tuple[str, ...]
    """Cards of the catalogue with that capacity."""
    reported: Reported | None
    recognised: Recognised | None
    usage: Usage | None
    remedies: tuple[Remedy, ...]
    against: Against | None

    @property
    def needed(self) -> int:
        """Bytes that were lacking, for the failed request or for what the scenario would still ask for."""
        return _needed(self.shortage, self.against) if self.shortage else 0

    @property
    def fragmentation(self) -> Judgement | None:
        """Whether fragmentation alone explains it; None without a failed request."""
        return fragmentation(self.shortage, _replayed(self.usage, self.against)) if self.shortage else None

    @property
    def cause(self) -> Cause | None:
        """What alone would have been enough; None without a failed request."""
        if self.shortage is None:
            return None
        return self.shortage.cause(fragmented=self.fragmentation is Judgement.YES, needed=self.needed)

    @property
    def remedy(self) -> Remedy | None:
        """The first remedy that is enough: for the failed request, and for what the scenario would still ask for."""
        return next((one for one in self.remedies if one.judgement is Judgement.YES), None)

    @property
    def solvable(self) -> bool:
        """Whether something that saves enough is known; without a scenario there may be more than is known here."""
        return self.against is None or self.remedy is not None or self.against.solvable

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: oom`."""
        reported, recognised = self.reported, self.recognised
        return {
            "schema": SCHEMA,
            "kind": "oom",
            "source": self.source,
            "failure": recognised.known.name if recognised else "out-of-memory" if self.shortage else None,
            "line": reported.line if reported else recognised.line if recognised else None,
            "further_failures": self._further,
            "meaning": recognised.known.meaning if recognised else None,
            "shortage": self.shortage.to_json() | {"cause": self.cause} if self.shortage else None,
            "phase": self.moment.phase.value if self.moment.phase else None,
            "moment": self.moment.words,
            "purpose": self.purpose.words,
            "component": self.purpose.component.value if self.purpose.component else None,
            "place": self.place,
            "gpus": list(self.gpus),
            "snapshot": self.usage.to_json() if self.usage else None,
            "remedies": [remedy.to_json() for remedy in self.remedies],
            "prediction": self.against.to_json() if self.against else None,
        }

    @property
    def _further(self) -> int:
        if self.reported is not None:
            return self.reported.others
        return max(self.usage.failures - 1, 0) if self.usage is not None else 0


def explain_path(path: Path, scenario: Scenario | None = None) -> Explanation:
    """What a log or a snapshot file says; a UsageError when it says nothing of memory, or cannot be read."""
    try:
        with path.open("rb") as file:
            return explain_file(file, str(path), scenario)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", hint="give a log with the error in it, or a memory snapshot"
        ) from error


def explain_file(file: BinaryIO, name: str, scenario: Scenario | None = None) -> Explanation:
    """What an open log or snapshot says: a pickle is known by its first byte."""
    start = file.read(MARK)
    if start == b"PK":
        raise UsageError(
            f"{name} is a zip archive (torch.save?), not a snapshot",
            hint="give the file that torch.cuda.memory._dump_snapshot wrote",
        )
    if start == b"\x1f\x8b":
        raise UsageError(f"{name} is compressed", hint=f"pipe it: gunzip -c {name} | vramplan explain-oom -")
    if start[:1] == b"\x80":
        return _of_usage(usage(read_snapshot(_whole(file, start, name))), name, scenario)
    return _of_log(read_log(text_stream(start, file), name), name, scenario)


def _whole(file: BinaryIO, start: bytes, name: str) -> bytes:
    most = Limits().file
    data = start + file.read(most)
    if len(data) > most:
        raise UsageError(
            f"{name} has more than {human(most)}",
            hint="record less: torch.cuda.memory._record_memory_history(max_entries=100000)",
        )
    return data


def _of_log(found: Reported | Recognised, name: str, scenario: Scenario | None) -> Explanation:
    if isinstance(found, Recognised):
        return Explanation(name, None, UNKNOWN_MOMENT, UNKNOWN, "", (), None, found, None, (), None)
    shortage, when, what = of_message(found.message), moment(found.stack), purpose(found.stack)
    frame, cards = owner(found.stack), _cards(shortage)
    held = against(_on(cards, scenario), shortage, when, what) if scenario else None
    return Explanation(
        source=name,
        shortage=shortage,
        moment=when,
        purpose=what,
        place=frame.place if frame else "",
        gpus=cards,
        reported=found,
        recognised=None,
        usage=None,
        remedies=_remedies(shortage, None, held, found.message.variable),
        against=held,
    )


def _of_usage(found: Usage, name: str, scenario: Scenario | None) -> Explanation:
    shortage = found.shortage
    held = against(scenario, shortage, found.moment, found.purpose) if scenario and shortage else None
    return Explanation(
        source=name,
        shortage=shortage,
        moment=found.moment,
        purpose=found.purpose,
        place=found.place,
        gpus=(),
        reported=None,
        recognised=None,
        usage=found,
        remedies=_remedies(shortage, found, held, USUAL_VARIABLE) if shortage else (),
        against=held,
    )


def _remedies(shortage: Shortage, found: Usage | None, held: Against | None, variable: str) -> tuple[Remedy, ...]:
    return tuple(remedies(shortage, _needed(shortage, held), _replayed(found, held), variable))


def _needed(shortage: Shortage, held: Against | None) -> int:
    return max(shortage.lacking, held.needed if held is not None else 0)


def _replayed(found: Usage | None, held: Against | None) -> bool | None:
    """What a replay with expandable segments says: of what happened, else of what the scenario says happens."""
    if found is not None and found.fits_expandable is not None:
        return found.fits_expandable
    return held.replayed if held is not None else None


def _on(cards: Sequence[str], scenario: Scenario) -> Scenario:
    """The scenario on the card that the capacity tells, where it names none and only one has it."""
    return replace(scenario, gpu=cards[0]) if not scenario.gpu and len(cards) == 1 else scenario


def _cards(shortage: Shortage) -> tuple[str, ...]:
    """Cards of the catalogue whose driver reports that capacity."""
    capacity = shortage.capacity
    if capacity is None:
        return ()
    cards = (gpu(name) for name in gpu_names())
    return tuple(one.name for one in cards if one.capacity_origin == "reported" and capacity.covers(one.capacity))
