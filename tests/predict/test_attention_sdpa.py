"""Attention: what its kernels and the eager code keep for backward, by hand."""

from operation_marks import marks

from vramplan.predict.attention_eager import eager
from vramplan.predict.attention_sdpa import Heads, sdpa
from vramplan.predict.tape import FLOAT32, Tape, Tensor


def heads_of(x: Tensor, t: Tape, heads: int) -> Tensor:
    return t.record(t.view(x, (2, heads, 4, 6)), (x,), [], lambda saved, grad: (t.view(grad, x.shape),))


def test_flash_keeps_its_output_and_a_log_sum_per_row() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        q = t.record(t.view(x, (2, 2, 4, 8)), (x,), [], lambda saved, grad: (t.view(grad, x.shape),))
        return sdpa(t, q, q, q, None, Heads(2, 2, 8, 8), "flash")

    # x is [2, 2, 4, 8]: 128 elements; 16 rows of float32 sums and two philox words
    assert marks(run, FLOAT32, "cuda", (2, 2, 4, 8))[1] == 16 * 4 + 2 * 8
    assert marks(run, FLOAT32, "cpu", (2, 2, 4, 8))[1] == 16 * 4


def test_flash_on_a_card_keeps_heads_that_are_no_multiple_of_8_as_wider_ones() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        q = heads_of(x, t, 2)
        return sdpa(t, q, q, q, None, Heads(2, 2, 6, 6), "flash")

    # query, key, value and output of [2, 2, 4, 8] in float32, beside the output of 6 that goes on
    assert marks(run, FLOAT32, "cuda", (2, 2, 4, 6))[1] == 4 * 128 * 4 + 16 * 4 + 2 * 8
    # the CPU's kernel takes them as they are
    assert marks(run, FLOAT32, "cpu", (2, 2, 4, 6))[1] == 16 * 4


def test_eager_attention_keeps_every_pair_of_positions() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        q = heads_of(x, t, 2)
        return eager(t, q, q, q, None, Heads(2, 2, 6, 6))[0]

    # softmax over 2 x 2 x 4 x 4 pairs, which the product with the values keeps (256); copies of q, k and v (384)
    assert marks(run, FLOAT32, "cuda", (2, 2, 4, 6))[1] == 256 + 3 * 384
