"""Liger's mixture of experts, by hand: 128 tokens of 16 numbers, 2 of 4 experts each, 32 wide inside, in bfloat16."""

from vramplan.architecture import Experts
from vramplan.ledger import Phase
from vramplan.predict.backward import run_backward
from vramplan.predict.liger_experts import liger_experts
from vramplan.predict.tape import BFLOAT16, INT64, Tape
from vramplan.timeline import Timeline

T, H, E, K, W = 128, 16, 4, 2, 32
ROWS = T * K
#: Where experts' rows begin; three permutations of the rows; the tiles, 256 / 64 and a begun one for each expert.
ROUTING = 4 * (E + 1) + 3 * 4 * ROWS + 2 * 4 * (ROWS // 64 + E)
WEIGHTS = 2 * E * 3 * W * H
"""Of all experts: gate and up [4, 64, 16], and down [4, 16, 32]."""


def test_backward_makes_the_gradients_of_frozen_experts() -> None:
    t = Tape("cuda")
    t.enter(Phase.FORWARD)
    x, weights = t.new((T, H), BFLOAT16, "x"), t.new((T, K), BFLOAT16, "router weights")
    t.require_grad(x)
    gate_up, down = (t.parameter(shape, BFLOAT16, trained=False) for shape in ((E, 2 * W, H), (E, H, W)))
    indices = t.new((T, K), INT64, "chosen")
    experts = Experts(count=E, per_token=K, intermediate=W, activation="silu")
    out = liger_experts(t, x, gate_up, down, weights, indices, experts)
    t.enter(Phase.BACKWARD)
    run_backward(t, out, t.new((T, H), BFLOAT16, "incoming"))
    del out
    ledger = Timeline(t.script.template(1, T).parts(1, T)).ledger({})
    given = 2 * T * H + 2 * ROWS + 8 * ROWS
    # beside those: choices as int32, their number per expert, what is kept, a row per chosen expert thrice, the output
    kept = ROUTING + 2 * ROWS * 2 * W
    assert ledger.allocated(Phase.FORWARD) == given + 4 * ROWS + 4 * E + kept + 2 * ROWS * (W + H) + 2 * T * H
    # the output, what comes in and what goes out; of each chosen expert gate and up, act * up, a number and a row;
    # and the gradients of all weights
    rows = 2 * ROWS * (2 * W + W + 1 + H)
    assert ledger.allocated(Phase.BACKWARD) == given + kept + 3 * 2 * T * H + rows + WEIGHTS
