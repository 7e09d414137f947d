"""Main memory: a run on the CPU that cannot fit into it is refused before it fills it."""

from pathlib import Path

from vramplan.errors import CannotRun, VramplanError
from vramplan.predict.forecast import ledger
from vramplan.scenario import Scenario
from vramplan.units import human

_MEMINFO = Path("/proc/meminfo")


def available(meminfo: Path = _MEMINFO) -> int | None:
    """Bytes that a process can still take without swapping (proc(5), MemAvailable); None where no file says it."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    words = sizes.get("MemAvailable", "").split()
    return int(words[0]) * 1024 if words else None


def check_host(scenario: Scenario, *, free: int | None) -> None:
    """Refuse a run on the CPU that the closed form says needs more than the `free` bytes; None is enough for all."""
    try:
        needs = ledger(scenario, "cpu").peak
    except VramplanError:  # not in closed form: what it needs is found out by running it
        return
    if free is not None and needs > free:
        raise CannotRun(
            f"{scenario.name} needs {human(needs)} of main memory, and {human(free)} are available",
            hint="measure a smaller model or batch, or predict it: `vramplan predict --engine trace` runs no weights",
        )
