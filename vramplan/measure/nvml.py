"""What the driver knows about the GPU that a run would take: capacity, who holds memory on it. No torch."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from vramplan.errors import CannotRun
from vramplan.units import MIB, human

#: What a card may hold before the run without counting as busy: a desktop's windows, a driver's own buffers. A choice:
#: the smallest CUDA training process holds a context of more than 100 MiB, and NVML lists compute processes anyway.
IDLE = 1024 * MIB
_HINT = "measure on the CPU (--device cpu), or predict: neither needs a GPU"


class Driver(NamedTuple):
    """The driver."""

    version: str
    cuda: str
    """The newest CUDA version that it serves."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as the driver sees it; before a run, the one that CUDA's device 0 will be."""

    name: str
    uuid: str
    driver: str
    cuda: str
    """The newest CUDA version that the driver serves."""
    compute_capability: str
    capacity: int
    used: int
    """Bytes held by anybody, the driver's own reservation aside."""
    free: int
    processes: tuple[int, ...]
    """Compute processes by id; often empty in a container, which the driver does not see into."""

    def facts(self) -> dict[str, Any]:
        """What a record says about it."""
        return {
            "gpu": self.name,
            "driver": self.driver,
            "driver_cuda": self.cuda,
            "capacity": self.capacity,
            "compute_capability": self.compute_capability,
            "used_before": self.used,
        }


@contextmanager
def nvml() -> Iterator[Any]:
    """The driver's library, open; CannotRun with the reason when there is none."""
    try:
        import pynvml
    except ImportError as error:
        raise CannotRun(
            "measuring on a GPU needs nvidia-ml-py, which is not installed", hint="pip install 'vramplan[measure]'"
        ) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise CannotRun(f"no NVIDIA GPU can be used here: {error}", hint=_HINT) from error
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise CannotRun(
            f"the GPU's driver does not answer: {error}", hint="`vramplan doctor` shows the GPUs"
        ) from error
    finally:
        pynvml.nvmlShutdown()


def first_visible(environment: Mapping[str, str]) -> int | str:
    """The card that CUDA's device 0 is, by index in PCI order or by UUID; CannotRun when every card is hidden.

    `CUDA_VISIBLE_DEVICES` ends at the first entry that names no card (CUDA C++ Programming Guide, "CUDA Environment
    Variables"), so `-1` hides all.
    """
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return 0
    first = value.split(",")[0].strip()
    if first.isdecimal():
        return int(first)
    if first.startswith(("GPU-", "MIG-")):
        return first
    raise CannotRun(f"CUDA_VISIBLE_DEVICES='{value}' hides every GPU", hint="unset it, or name a card such as 0")


def card(environment: Mapping[str, str] = os.environ) -> Card:
    """The GPU that a run would take now."""
    chosen = first_visible(environment)
    with nvml() as library:
        return _card(library, _handle(library, chosen), _driver(library))


def cards() -> tuple[tuple[Card, ...], Driver]:
    """Every GPU that the driver shows, CUDA's hidden ones too, and the driver."""
    with nvml() as library:
        driver = _driver(library)
        handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        return tuple(_card(library, handle, driver) for handle in handles), driver


def _driver(library: Any) -> Driver:
    cuda = int(library.nvmlSystemGetCudaDriverVersion_v2())
    return Driver(_text(library.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}")


def _card(library: Any, handle: Any, driver: Driver) -> Card:
    total, used, free = _memory(library, handle)
    return Card(
        name=_text(library.nvmlDeviceGetName(handle)),
        uuid=_text(library.nvmlDeviceGetUUID(handle)),
        driver=driver.version,
        cuda=driver.cuda,
        compute_capability=".".join(map(str, library.nvmlDeviceGetCudaComputeCapability(handle))),
        capacity=total,
        used=used,
        free=free,
        processes=tuple(int(process.pid) for process in _processes(library, handle)),
    )


def idle_card(patience: float = 10.0) -> Card:
    """The GPU that a run would take, once nobody computes on it; CannotRun when that takes more than `patience`
    seconds.

    The driver takes a while to clear up after a process that has just ended, such as the run before this one.
    """
    deadline = time.monotonic() + patience
    while True:
        found = card()
        try:
            check_idle(found)
        except CannotRun:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return found


def check_idle(found: Card) -> None:
    """Refuse a card that somebody else computes on: what they take and give back would be in the figures."""
    if found.processes:
        who = ", ".join(map(str, found.processes))
        raise CannotRun(f"{found.name} is busy: processes {who}", hint="wait until they end, or choose another card")
    if found.used > IDLE:
        raise CannotRun(
            f"{found.name} is busy: {human(found.used)} are in use", hint="wait until it is idle, or choose another"
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds on the card, and how that is known."""

    bytes: int
    origin: str


def held(uuid: str, pid: int, used_before: int) -> Held:
    """The driver's figure for the process; where it lists no such process, what the card holds more than before."""
    with nvml() as library:
        handle = library.nvmlDeviceGetHandleByUUID(uuid)
        for process in _processes(library, handle):
            if process.pid == pid and process.usedGpuMemory:
                return Held(int(process.usedGpuMemory), "NVML, this process")
        _, used, _ = _memory(library, handle)
    return Held(used - used_before, "NVML, the card's use less that before the run (no process list)")


def _handle(library: Any, chosen: int | str) -> Any:
    count = library.nvmlDeviceGetCount()
    if isinstance(chosen, str):
        return library.nvmlDeviceGetHandleByUUID(chosen)
    if chosen >= count:
        raise CannotRun(
            f"CUDA_VISIBLE_DEVICES names card {chosen}, and the driver shows {count}", hint="cards count from 0"
        )
    return library.nvmlDeviceGetHandleByIndex(chosen)


def _processes(library: Any, handle: Any) -> list[Any]:
    """Compute processes on the card; none where the driver may not say."""
    try:
        return list(library.nvmlDeviceGetComputeRunningProcesses(handle))
    except library.NVMLError:
        return []


def _memory(library: Any, handle: Any) -> tuple[int, int, int]:
    """Total, used, free; by the second version of the query, whose `used` leaves out what the driver reserves."""
    try:
        memory = library.nvmlDeviceGetMemoryInfo(handle, version=library.nvmlMemory_v2)
    except library.NVMLError:  # a driver before 510 knows only the first version
        memory = library.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.total), int(memory.used), int(memory.free)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
