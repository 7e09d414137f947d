"""The loss: what it keeps of the logits and the most that its backward holds, by hand."""

import pytest
from operation_marks import marks

from vramplan.predict.loss import causal_loss
from vramplan.predict.tape import BFLOAT16, FLOAT32, Kind


@pytest.mark.parametrize(("kind", "copy"), [(FLOAT32, 0), (BFLOAT16, 192)])
def test_the_loss_holds_three_times_the_logits_in_fp32(kind: Kind, copy: int) -> None:
    forward, kept, backward = marks(causal_loss, kind, "cuda")
    labels, scalars = 6 * 8, 4
    assert kept == 192 + labels + scalars  # log-probabilities, shifted labels, total weight
    assert forward == copy + 192 + labels + 2 * 4 * 8 + 2 * scalars  # beside padded labels [2, 4], loss and weight
    assert backward == 192 + 192 + 192  # log-probabilities and two gradients
