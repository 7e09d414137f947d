"""The tracker on a CUDA device, which can rest while bare steps run."""

from collections.abc import Iterator
from contextlib import contextmanager

from vramplan.ledger import Phase
from vramplan.measure.tracker import Tracker
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
