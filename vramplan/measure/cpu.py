"""The CPU meter: a real run under the tracker, checked by the profiler, as a ledger."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vramplan.ledger import Basis, Component, Entry, Ledger, Phase, merge_entries
from vramplan.measure.bnb_kernels import cpu_opener
from vramplan.measure.profiler import PhaseMarks, profile_peaks
from vramplan.measure.tracker import Rule, Temporary, Tracker
from vramplan.scenario import Method


def _mixed_sum(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """aten/src/ATen/TensorIterator.cpp (2.13) `compute_types`: on CPU a sum of two dtypes is made in the wider one.

    An operand of another dtype is copied; so is the result, where it is the narrower operand itself.
    """
    left, right = args[0], args[1]
    if not isinstance(right, Tensor) or right.dim() == 0:
        return ()
    wide = torch.promote_types(left.dtype, right.dtype)
    return tuple(
        Temporary(term.numel() * wide.itemsize, "operand of a sum in the wider dtype")
        for term in (left, right)
        if term.dtype is not wide
    )


def _mixed_sum_in_place(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    copies = _mixed_sum(args, kwargs)
    result = args[0].numel() * torch.promote_types(args[0].dtype, args[1].dtype).itemsize if copies else 0
    narrower = copies and copies[0].bytes == result and args[0].dtype is not args[1].dtype
    return (*copies, Temporary(result, "sum in the wider dtype")) if narrower else copies


def _integer_product(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """The same of a product of int32 with fp32: 8-bit layers scale theirs (bitsandbytes 0.50 int8_mm_dequant)."""
    left, right = args[0], args[1]
    if left.dtype is not torch.int32 or not isinstance(right, Tensor) or right.dtype is not torch.float32:
        return ()
    return (Temporary(left.numel() * 4, "int32 operand of a product in fp32"),)


#: What the CPU's kernels take inside themselves in every run.
_PRODUCTS: Mapping[Any, Rule] = {torch.ops.aten.mul.Tensor: _integer_product}
#: Besides, what additions take when a merge adds fp32 to 16 bits.
_MIXED_SUMS: Mapping[Any, Rule] = {
    **_PRODUCTS,
    torch.ops.aten.add.Tensor: _mixed_sum,
    torch.ops.aten.add_.Tensor: _mixed_sum_in_place,
}


def cpu_rules(method: Method) -> Mapping[Any, Rule]:
    """What the CPU's kernels take inside themselves in a run of the method."""
    return _MIXED_SUMS if method is Method.MERGE else _PRODUCTS


class CpuMeter(Tracker):  # type: ignore[no-untyped-call]
    """A tracker of CPU memory: `with meter:` around set-up and two steps, then `check`, then `ledger`."""

    def __init__(self, *, vocab: int, rules: Mapping[Any, Rule] = _PRODUCTS) -> None:
        super().__init__(vocab=vocab, device="cpu", openers={"bitsandbytes": cpu_opener()}, rules=rules)
        self._peaks: Mapping[Phase, int] = {}

    def check(self, step: Callable[[PhaseMarks], object]) -> None:
        """Run one more step under the profiler, without the tracker: its peaks are the independent second opinion."""
        self._peaks = profile_peaks(step)

    def ledger(self) -> Ledger:
        """Every phase's high-water mark by component, all measured; what only the profiler saw is `unknown`."""
        seen = self.timeline().ledger(dict.fromkeys(Component, Basis.MEASURED))
        unknown = tuple(
            Entry(phase, Component.UNKNOWN, missing, Basis.MEASURED, "seen by the profiler, not by the tracker")
            for phase, peak in self._peaks.items()
            if (missing := seen.steady + peak - seen.allocated(phase))
        )
        return Ledger(merge_entries((*seen.entries, *unknown)), seen.steady)
