"""The tracker on a CUDA device, which can rest while bare steps run, and bitsandbytes' CUDA kernels in the open."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vramplan.ledger import Phase
from vramplan.measure.bnb_kernels import Kernel, _execute, _opener
from vramplan.measure.tracker import Opener, Tracker
from vramplan.training.loop import TrainingLoop
from vramplan.training.names import causal_model, name_adapters, name_base, name_optimizer
from vramplan.training.run import Workload


class CudaTracker(Tracker):  # type: ignore[no-untyped-call]
    """Sees births while it is the mode (`with tracker`) and deaths all the time that it listens."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, storages that die are noted, also while nobody watches operations."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def resume(self, workload: Workload, phase: Phase) -> None:
        """Learn what was made while it rested and still lives: names of the model's and the optimizer's tensors."""
        self.enter(phase)
        model = causal_model(workload.model)
        name_base(model, self)
        name_adapters(workload.model, self)
        if isinstance(workload, TrainingLoop):
            name_optimizer(workload.optimizer, self)


def cuda_opener() -> Opener:
    """Runs bitsandbytes' operations by their CUDA kernels, for real, so that every tensor inside is seen."""
    found: dict[str, Kernel] = {}
    _execute("bitsandbytes.backends.default.ops", found)
    module = _execute("bitsandbytes.backends.cuda.ops", found)
    module.__dict__["_get_raw_stream"] = torch._C._cuda_getCurrentRawStream
    return _opener(found)
