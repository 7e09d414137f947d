"""Where a measurement was made: device, processor, versions, date. No torch."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vramplan.errors import require_installed
from vramplan.scenario import Scenario
from vramplan.stacks import LossKernel, Stack
from vramplan.torch_release import release

#: The libraries whose behaviour decides what a run takes; their versions stand in every record.
LIBRARIES = ("torch", "transformers", "bitsandbytes", "peft", "accelerate")


def library_versions(scenario: Scenario | None = None) -> dict[str, str]:
    """Installed versions of the libraries that run, with the scenario's also of those that its training loop is built
    on; a library that is not installed is left out."""
    versions = {}
    for name in (*LIBRARIES, *(() if scenario is None else _of_stack(scenario))):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _of_stack(scenario: Scenario) -> tuple[str, ...]:
    """The packages, by the index's names, that run for this stack beside those that run for every one."""
    packages = []
    if scenario.method.trains and _needs_trl(scenario.stack):
        packages.append("trl")
    if scenario.runs_liger:
        packages.append("liger-kernel")
    return tuple(packages)


def _needs_trl(stack: Stack) -> bool:
    return stack.trl or stack.loss is LossKernel.TILED


def installed_torch() -> str:
    """The release of PyTorch that is installed, which is that of every scenario measured here on a card."""
    return release(version("torch"))


def require_libraries(what: str = "measuring") -> None:
    """CannotRun, naming the extra to install, unless every library that a measurement or a trace runs is installed."""
    require_installed(what, LIBRARIES, hint="pip install 'vramplan[measure]'")


def require_stack(scenario: Scenario) -> None:
    """CannotRun, naming what to install, unless what the scenario's training loop is built on is installed."""
    stack = scenario.stack
    if _needs_trl(stack):
        what = f"stack {stack.base}" if stack.trl else "stack.loss: tiled"
        require_installed(what, ("trl",), hint="pip install 'vramplan[measure,trl]'")
    if scenario.runs_liger:
        what = "stack.kernels" if stack.kernels else "stack.loss: liger"
        require_installed(what, ("liger_kernel", "triton"), hint="pip install 'vramplan[measure,liger]', on Linux")


def environment(device: str) -> Mapping[str, Any]:
    """What a record says about the machine: device, processor, memory, system, date."""
    return {
        "device": device,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_name() -> str:
    """The processor's model name as Linux gives it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
