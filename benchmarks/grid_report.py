"""What the grid found: errors of the closed form against the trace, by phase, and every point that misses."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmarks.grid_points import families, title
from vramplan.units import human

PHASES = ("load", "forward", "loss", "backward", "step")
MISS = 0.01  # errors above this are listed one by one, with the component that differs most
Parts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Row:
    """A point of the grid; no phases on either side when an engine said nothing."""

    mapping: dict[str, Any]
    analytic: Parts
    trace: Parts
    reserved: tuple[int, int]
    """Highest reserved of the run: closed form, trace."""
    doubts: tuple[str, ...] = ()
    """What the closed form itself says is not exact."""
    missing: str = ""
    """Which engine said nothing, and why."""

    @classmethod
    def of(cls, mapping: dict[str, Any], analytic: dict[str, Any], trace: dict[str, Any]) -> "Row":
        """The row of what `grid.run` returned for both engines."""
        missing = [
            f"{engine} {kind}: {said[kind]}"
            for engine, said in (("closed form", analytic), ("trace", trace))
            for kind in ("refused", "failed")
            if kind in said
        ]
        if missing:
            return cls(mapping, {}, {}, (0, 0), missing="; ".join(missing))
        reserved = (analytic["reserved"], trace["reserved"])
        return cls(mapping, analytic["phases"], trace["phases"], reserved, tuple(analytic.get("doubts", ())))

    @property
    def peaks(self) -> tuple[int, int]:
        """Peak allocated: closed form, trace."""
        first, second = (max(sum(parts.values()) for parts in side.values()) for side in (self.analytic, self.trace))
        return first, second

    @property
    def peak_error(self) -> float:
        """Relative error of peak allocated, signed."""
        return _relative(*self.peaks)

    @property
    def reserved_error(self) -> float:
        """Relative error of peak reserved, signed."""
        return _relative(*self.reserved)

    def phase(self, phase: str) -> tuple[int, int]:
        """Allocated at the high-water mark of one phase: closed form, trace."""
        return sum(self.analytic[phase].values()), sum(self.trace[phase].values())

    def phase_error(self, phase: str) -> float:
        """Relative error of one phase's high-water mark, signed."""
        return _relative(*self.phase(phase))

    def differences(self, phase: str) -> list[tuple[str, int]]:
        """Components that differ at the phase's high-water mark, the largest difference first, signed."""
        ours, theirs = self.analytic[phase], self.trace[phase]
        found = [(name, ours.get(name, 0) - theirs.get(name, 0)) for name in dict.fromkeys((*ours, *theirs))]
        return sorted(((name, by) for name, by in found if by), key=lambda item: -abs(item[1]))

    def to_json(self) -> dict[str, Any]:
        """The row in `grid.json`."""
        if self.missing:
            return {"scenario": self.mapping, "missing": self.missing}
        phases = {p: dict(zip(("analytic", "trace"), self.phase(p), strict=True)) for p in PHASES}
        reserved = dict(zip(("analytic", "trace"), self.reserved, strict=True))
        return {
            "scenario": self.mapping,
            "peak": dict(zip(("analytic", "trace"), self.peaks, strict=True)) | {"error": round(self.peak_error, 6)},
            "reserved": reserved | {"error": round(self.reserved_error, 6)},
            "phases": phases,
            "doubts": list(self.doubts),
        }


def _relative(ours: int, theirs: int) -> float:
    return ours / theirs - 1


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean and worst error of the peaks and of every phase: of the rows that have no doubts, and of the others."""
    return {
        "missing": sum(bool(row.missing) for row in rows),
        "known": _errors([row for row in rows if not row.missing and not row.doubts]),
        "doubted": _errors([row for row in rows if row.doubts]),
    }


def _errors(rows: Sequence[Row]) -> dict[str, Any]:
    errors = {"peak allocated": [r.peak_error for r in rows], "peak reserved": [r.reserved_error for r in rows]}
    errors |= {phase: [row.phase_error(phase) for row in rows] for phase in PHASES}
    figures = {
        name: {
            "mean": round(mean(map(abs, values)), 6),
            "worst": round(max(values, key=abs), 6),
            "within 1 %": sum(abs(value) <= MISS for value in values),
        }
        for name, values in errors.items()
        if values
    }
    return {"scenarios": len(rows), "errors": figures}


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """The report as Markdown."""
    found = summary(rows)
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    known, doubted = found["known"], found["doubted"]
    lines = [
        "# The closed form against the trace",
        "",
        f"{known['scenarios'] + doubted['scenarios']} scenarios on {about['date']} with {libraries}, "
        f"for {_cards(rows)}: models of {_families(rows)} of the catalogue's {len(families())} architectures at full "
        "size, settings drawn with a fixed seed. Errors are of the closed form relative to the trace; `make grid` "
        "does it again.",
        *_table("Scenarios that the closed form knows", known),
    ]
    if doubted["scenarios"]:
        lines += _table("Scenarios of which it warns that it is not exact", doubted)
        doubts = Counter(doubt for row in rows for doubt in row.doubts)
        lines += ["", *(f"- {doubt}: {number} scenarios" for doubt, number in doubts.items())]
    return "\n".join([*lines, *_by_family(rows), *_misses(rows), *_missing(rows)]) + "\n"


def _table(title: str, found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        f"## {title}",
        "",
        "| high-water mark of | mean error | worst error | within 1 % |",
        "|---|--:|--:|--:|",
    ]
    for name, figures in found["errors"].items():
        share = f"{figures['within 1 %']} of {found['scenarios']}"
        lines.append(f"| {name} | {figures['mean']:.3%} | {figures['worst']:+.2%} | {share} |")
    return lines


def _cards(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({row.mapping["gpu"] for row in rows}))


def _families(rows: Sequence[Row]) -> int:
    covered = {row.mapping["model"] for row in rows if not row.missing}
    return sum(any(name in covered for name in members) for members in families().values())


def _by_family(rows: Sequence[Row]) -> list[str]:
    lines = ["", "## By architecture", ""]
    lines += ["| architecture | scenarios | mean error of the peak | worst |", "|---|--:|--:|--:|"]
    for family, members in families().items():
        errors = [row.peak_error for row in rows if not row.missing and row.mapping["model"] in members]
        if errors:
            worst = max(errors, key=abs)
            lines.append(f"| {family} | {len(errors)} | {mean(map(abs, errors)):.3%} | {worst:+.2%} |")
    return lines


def _misses(rows: Sequence[Row]) -> list[str]:
    found = [line for row in rows if not row.missing for line in misses(row)]
    if not found:
        return ["", "## Errors above 1 %", "", "None."]
    head = ["", "## Errors above 1 %", "", "| scenario | phase | error | bytes | components that differ |"]
    return [*head, "|---|---|--:|--:|---|", *found]


def misses(row: Row) -> list[str]:
    """A line of the table of misses for every phase of the row whose error is above 1 %."""
    lines = []
    for phase in PHASES:
        if abs(row.phase_error(phase)) > MISS:
            ours, theirs = row.phase(phase)
            parts = ", ".join(f"{name} {_signed(by)}" for name, by in row.differences(phase)[:3])
            peak = " (the peak)" if theirs == row.peaks[1] else ""
            error = f"{row.phase_error(phase):+.2%}"
            lines.append(f"| {title(row.mapping)} | {phase}{peak} | {error} | {_signed(ours - theirs)} | {parts} |")
    return lines


def _signed(size: int) -> str:
    return f"+{human(size)}" if size > 0 else human(size)


def _missing(rows: Sequence[Row]) -> list[str]:
    reasons = Counter((row.mapping["model"], row.missing) for row in rows if row.missing)
    if not reasons:
        return []
    lines = ["", "## Not compared", ""]
    return lines + [f"- {model}, {number} scenarios: {reason}" for (model, reason), number in reasons.items()]
