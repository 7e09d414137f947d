"""The variable that sets PyTorch's CUDA allocator, as far as predictions follow it."""

from collections.abc import Mapping

#: c10/cuda/CUDAAllocatorConfig.h: torch 2.9 and later know the shorter name too.
VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
_EXPANDABLE = "expandable_segments"


def settings(environment: Mapping[str, str]) -> str:
    """All that these variables set; empty where they set nothing."""
    return ",".join(filter(None, (environment.get(name, "") for name in VARIABLES)))


def expandable_segments(environment: Mapping[str, str]) -> bool:
    """Whether a process with these variables runs with `expandable_segments:True`."""
    given = settings(environment).split(",")
    return any(setting.replace(" ", "") == f"{_EXPANDABLE}:True" for setting in given)


def with_expandable_segments(environment: Mapping[str, str]) -> dict[str, str]:
    """Both variables, their other settings kept, for a process that shall run with `expandable_segments:True`."""
    return {name: _with_expandable(environment.get(name, "")) for name in VARIABLES}


def _with_expandable(given: str) -> str:
    others = [setting for setting in given.split(",") if setting and _EXPANDABLE not in setting]
    return ",".join((*others, f"{_EXPANDABLE}:True"))
