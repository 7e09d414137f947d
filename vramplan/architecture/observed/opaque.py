"""A function that nobody answers for by name: told as one that saves whatever it is given, or was changed by it."""

from typing import Any

from vramplan.architecture.observed.calls import Call, tensors_in
from vramplan.architecture.observed.handles import Handles, spec


def opaque(handles: Handles, call: Call) -> Any:
    """torch's answer; where it is differentiated, the observer notes that it is not known exactly."""
    out = call.run()
    results, inputs = tensors_in(out), tensors_in([call.args, call.kwargs])
    if not results:
        return out
    observer, told = handles.observer, [handles.of(x) for x in inputs]
    if any(x.is_floating_point() or x.is_complex() for x in results) and observer.tracked(*told):
        observer.doubt(f"torch's {call.name}")
    if inputs and out is inputs[0]:  # in place
        return handles.change(out, observer.overwritten(told[0], told[1:]))
    if any(result is x for result in results for x in inputs):
        return out
    for result, handle in zip(results, observer.opaque(told, list(map(spec, results))), strict=True):
        handles.put(result, handle)
    return out
