"""Step times as a record keeps them."""

import statistics
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vramplan.scenario import Method, Scenario
from vramplan.training.loop import TrainingLoop
from vramplan.training.meter import NoMeter
from vramplan.training.run import Workload


def note_loss(result: Tensor, losses: list[float]) -> None:
    """Keep what a run returned, if it is the loss of a training step; the tokens of a generation are not kept."""
    if result.dim() == 0:
        losses.append(float(result))


def make_bare(workload: Workload) -> None:
    """Let the workload run as it is timed from now on: nobody watches, and no evaluation follows a step."""
    workload.meter = NoMeter()
    if isinstance(workload, TrainingLoop):
        workload.evaluates = False


def timings(milliseconds: Sequence[float], scenario: Scenario, losses: Sequence[float]) -> dict[str, Any]:
    """Times of bare runs (median, fastest, slowest, each), tokens per second by the median, and the losses so far."""
    median = statistics.median(milliseconds)
    tokens = scenario.tokens * scenario.grad_accum if scenario.method.trains else scenario.batch * scenario.new_tokens
    speed = {} if scenario.method is Method.MERGE else {"tokens_per_second": round(1000 * tokens / median, 1)}
    return {
        "step_ms": round(median, 3),
        "step_ms_min": round(min(milliseconds), 3),
        "step_ms_max": round(max(milliseconds), 3),
        "steps_ms": [round(value, 3) for value in milliseconds],
        **speed,
        "losses": list(losses),
    }
