"""The variable that sets PyTorch's CUDA allocator, as far as predictions follow it.

c10/cuda/CUDAAllocatorConfig.h (torch 2.9 to 2.14) reads one of two, the first that is there, and of a key that stands
in it twice the last value; asked of the CUDA builds of 2.11 and 2.13.
"""

from collections.abc import Mapping

#: What every release on CUDA reads.
USUAL_VARIABLE = "PYTORCH_CUDA_ALLOC_CONF"
#: The second is known to torch 2.9 and later.
_VARIABLES = (USUAL_VARIABLE, "PYTORCH_ALLOC_CONF")
_EXPANDABLE = "expandable_segments"


def settings(environment: Mapping[str, str]) -> str:
    """What is set; empty where nothing is."""
    return environment.get(_read(environment), "")


def expandable_segments(environment: Mapping[str, str]) -> bool:
    """Whether a process with these variables runs with `expandable_segments:True`."""
    pairs = (setting.partition(":") for setting in settings(environment).replace(" ", "").split(","))
    return [value for key, _, value in pairs if key == _EXPANDABLE][-1:] == ["True"]


def with_expandable_segments(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that is read, its other settings kept, for a process that shall run with them."""
    others = [setting for setting in settings(environment).split(",") if setting and _EXPANDABLE not in setting]
    return {_read(environment): ",".join((*others, f"{_EXPANDABLE}:True"))}


def _read(environment: Mapping[str, str]) -> str:
    """The name of the variable that is read."""
    return next((name for name in _VARIABLES if name in environment), USUAL_VARIABLE)
