"""Liger's operations of a layer, by hand: x of [2, 3, 8] in bfloat16 is 96 bytes, a number per row in fp32 24."""

import pytest

from tests.predict.operation_marks import marks
from vramplan.ledger import Phase
from vramplan.predict.backward import run_backward
from vramplan.predict.liger_layers import liger_gated, liger_rms_norm, liger_rotated
from vramplan.predict.tape import BFLOAT16, FLOAT32, Tape, Tensor
from vramplan.timeline import Timeline

X, ROWS = 96, 24


def norm(t: Tape, x: Tensor, *, in_place: bool = True, contiguous: bool = True, trained: bool = False) -> Tensor:
    weight = t.parameter((x.shape[-1],), BFLOAT16, trained=trained)
    return liger_rms_norm(t, x, weight, in_place=in_place, contiguous=contiguous)


def test_a_norm_keeps_its_input_and_a_number_per_row() -> None:
    # forward: the output and a number per row; kept: the latter, for x is somebody's; backward: nothing more
    assert marks(norm, BFLOAT16, "cuda") == (X + ROWS, ROWS, ROWS)


def test_a_norm_whose_gradient_is_needed_elsewhere_makes_its_own() -> None:
    assert marks(lambda t, x: norm(t, x, in_place=False), BFLOAT16, "cuda") == (X + ROWS, ROWS, ROWS + X)


def test_a_norm_of_what_lies_apart_copies_it_first() -> None:
    assert marks(lambda t, x: norm(t, x, contiguous=False), BFLOAT16, "cuda") == (2 * X + ROWS, X + ROWS, X + ROWS)


def test_a_trained_norm_sums_up_per_multiprocessor() -> None:
    # a Tape's 108 multiprocessors have a row of 8 fp32 numbers each; their sum in fp32, and in bfloat16
    assert marks(lambda t, x: norm(t, x, trained=True), BFLOAT16, "cuda")[2] == ROWS + 108 * 32 + 32 + 16


@pytest.mark.parametrize(("contiguous", "copies"), [(True, 0), (False, 2 * X)])
def test_a_gated_mlp_keeps_both_halves_whose_gradients_take_their_places(contiguous: bool, copies: int) -> None:
    t = Tape("cuda")
    t.enter(Phase.FORWARD)
    gate, up = (t.new((2, 3, 8), BFLOAT16, "half") for _ in range(2))
    for half in (gate, up):
        t.require_grad(half)
    out = liger_gated(t, gate, up, contiguous=contiguous)
    t.enter(Phase.LOSS)
    grad = t.new(out.shape, BFLOAT16, "incoming")
    t.enter(Phase.BACKWARD)
    run_backward(t, out, grad)
    ledger = Timeline(t.script.template(2, 3).parts(2, 3)).ledger({})
    # the halves themselves, copies of them, the product; in backward, besides, what comes in, and nothing that is made
    assert ledger.allocated(Phase.FORWARD) == 2 * X + copies + X
    assert ledger.allocated(Phase.BACKWARD) == 2 * X + copies + X + X


def test_queries_and_keys_turn_where_they_are() -> None:
    assert rotated() == 0


def test_slices_of_one_projection_are_copied_first() -> None:
    # in fp32, queries of [1, 2, 3, 4] and keys of [1, 1, 3, 4]
    assert rotated(contiguous=False) == 96 + 48


def test_tables_that_serve_both_halves_are_copied_and_kept() -> None:
    # cosines and sines [1, 3, 4] in fp32; the originals are the model's
    assert rotated(half_width_tables=True) == 2 * 48


def rotated(*, contiguous: bool = True, half_width_tables: bool = False) -> int:
    """Bytes that are there once queries and keys have been turned, and were not before."""
    t = Tape("cuda")
    t.enter(Phase.FORWARD)
    query, key = (t.new((1, heads, 3, 4), FLOAT32, "x") for heads in (2, 1))
    cos, sin = (t.new((1, 3, 4), FLOAT32, name) for name in ("cos", "sin"))
    for x in (query, key):
        t.require_grad(x)
    turned = liger_rotated(t, query, key, cos, sin, contiguous=contiguous, half_width_tables=half_width_tables)
    assert [x.shape for x in turned] == [query.shape, key.shape]
    ledger = Timeline(t.script.template(1, 3).parts(1, 3)).ledger({})
    return ledger.allocated(Phase.FORWARD) - sum(x.numel * 4 for x in (query, key, cos, sin))
