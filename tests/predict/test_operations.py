"""One operation at a time: what it keeps for backward and the most that its backward holds, by hand.

x is [2, 3, 8]: 48 elements, 192 bytes in float32, 96 in bfloat16.
"""

from collections.abc import Callable

import pytest

from vramplan.ledger import Phase
from vramplan.predict.backward import run_backward
from vramplan.predict.loss import causal_loss
from vramplan.predict.operations import dropout, layer_norm, mul, rms_norm, softmax, split
from vramplan.predict.operations_attention import Heads, eager, sdpa
from vramplan.predict.operations_mlp import activation
from vramplan.predict.projections import Adapter, Projection, Quantised, linear
from vramplan.predict.tape import BFLOAT16, FLOAT16, FLOAT32, Kind, Tape, Tensor
from vramplan.timeline import Timeline

Run = Callable[[Tape, Tensor], Tensor]


def marks(run: Run, kind: Kind, device: str, shape: tuple[int, ...] = (2, 3, 8)) -> tuple[int, int, int]:
    """Bytes held at the highest moment of forward, kept when it is over, and at the highest moment of backward.

    The input itself, which someone else holds, and the incoming gradient are not counted.
    """
    t = Tape(device)
    t.enter(Phase.FORWARD)
    x = t.new(shape, kind, "x")
    t.require_grad(x)
    y = run(t, x)
    t.enter(Phase.LOSS)
    grad = t.new(y.shape, y.kind, "incoming")
    out = y.numel * y.kind.bytes
    t.enter(Phase.BACKWARD)
    run_backward(t, y, grad)
    ledger = Timeline(t.script.template(2, 3).parts(2, 3)).ledger({})
    given, incoming = x.numel * kind.bytes, out
    return (
        ledger.allocated(Phase.FORWARD) - given,
        ledger.allocated(Phase.LOSS) - given - incoming - out,
        ledger.allocated(Phase.BACKWARD) - given - incoming - out,
    )


def test_rms_norm_of_fp32_keeps_the_input_and_the_reciprocal_roots() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        return rms_norm(t, x, t.parameter((8,), FLOAT32, trained=False))

    forward, kept, backward = marks(run, FLOAT32, "cuda")
    # normed (192) and its product with the weight (192) meet, beside the six reciprocal roots and the mean (24 each)
    assert forward == 192 + 192 + 24 + 24
    assert kept == 24  # the roots; x is the input itself
    # backward of the square: two factors and the result (3 x 192) beside x's first gradient (192), the roots gone
    assert backward >= 4 * 192


def test_rms_norm_of_16_bit_keeps_an_fp32_copy() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        return rms_norm(t, x, t.parameter((8,), BFLOAT16, trained=False))

    assert marks(run, BFLOAT16, "cuda")[1] == 192 + 24


def test_layer_norm_keeps_mean_and_deviation_of_each_row() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        weight = t.parameter((8,), FLOAT32, trained=False)
        return layer_norm(t, x, weight, t.parameter((8,), FLOAT32, trained=False))

    # six rows, 4 bytes each for mean and deviation; backward makes the gradient
    assert marks(run, FLOAT32, "cuda") == (192 + 48, 48, 48 + 192)


def test_a_linear_layer_with_frozen_weight_keeps_nothing() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        return linear(t, x, t.parameter((16, 8), FLOAT32, trained=False), None, "y")

    assert marks(run, FLOAT32, "cuda") == (384, 0, 192)


def test_autocast_keeps_the_16_bit_copy_of_a_weight_that_the_inputs_gradient_needs() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        with t.casting(BFLOAT16):
            return linear(t, x, t.parameter((16, 8), FLOAT32, trained=False), None, "y")

    # forward: weight (256) and input (96) in 16 bits beside the output (192); the weight is kept
    assert marks(run, FLOAT32, "cuda")[:2] == (256 + 96 + 192, 256)


def four_bit(t: Tape, *, double: bool, adapter: Adapter | None = None) -> Projection:
    quantised = Quantised(4, 64, double, BFLOAT16, BFLOAT16)
    return Projection("p", 8, 16, None, quantised, None, adapter)


@pytest.mark.parametrize(("double", "constants"), [(False, 0), (True, 2 * 4)])
def test_a_4_bit_layer_keeps_nothing_and_dequantises_in_both_directions(double: bool, constants: int) -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        return four_bit(t, double=double)(t, x)

    # CPU: 128 weights in bfloat16 (256) and the output (192); with double quantisation two blocks' constants (8)
    forward, kept, backward = marks(run, BFLOAT16, "cpu")
    assert (forward, kept) == (256 + 192 + constants, 0)
    assert backward == 256 + 96  # the matrix and the gradient; the constants go when the matrix is there


def test_an_fp32_stream_adds_a_copy_into_and_out_of_a_4_bit_layer() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        return four_bit(t, double=False)(t, x)

    # input copy (96), matrix (256) and 16-bit output (192); later the output twice (192 + 384) and the input copy
    assert marks(run, FLOAT32, "cpu")[0] == max(96 + 256 + 192, 96 + 192 + 384)


def test_an_adapter_keeps_its_input_and_its_low_rank_output() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        a, b = t.parameter((2, 8), FLOAT32, trained=True), t.parameter((16, 2), FLOAT32, trained=True)
        return four_bit(t, double=False, adapter=Adapter(a, b, False))(t, x)

    # x itself (fp32, no copy) and lora_A's output: 6 x 2 x 4 bytes
    assert marks(run, FLOAT32, "cpu")[1] == 48


@pytest.mark.parametrize(("device", "mask"), [("cuda", 48), ("cpu", 192)])
def test_dropout_keeps_one_byte_per_element_on_cuda_and_a_noise_tensor_on_cpu(device: str, mask: int) -> None:
    assert marks(dropout, FLOAT32, device) == (192 + mask, mask, mask + 192)


@pytest.mark.parametrize(("device", "product"), [("cuda", 192), ("cpu", 0)])
def test_softmax_backward_on_cuda_multiplies_gradient_and_output_first(device: str, product: int) -> None:
    # the output, which is also what is kept, is counted as the output
    assert marks(lambda t, x: softmax(t, x, FLOAT32), FLOAT32, device) == (192, 0, 192 + product)


def test_only_fp16_is_upcast_inside_cudas_softmax() -> None:
    assert marks(lambda t, x: softmax(t, x, FLOAT32), FLOAT16, "cuda")[0] == 192
    assert marks(lambda t, x: softmax(t, x, FLOAT32), BFLOAT16, "cuda")[0] == 192 + 192


def test_a_split_joins_its_gradients_once() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        first, second = split(t, x, [4, 4])
        return mul(t, first, second, "y")

    # y is 96 bytes; backward: two gradients of a half each (96), then the whole (192) beside both
    assert marks(run, FLOAT32, "cuda") == (96, 0, 2 * 96 + 192)


def test_gelu_new_keeps_every_step() -> None:
    # kept: 0.5 x, tanh and 1 + tanh (192 each); x and the result are not counted
    assert marks(lambda t, x: activation(t, "gelu_new", x), FLOAT32, "cuda")[1] == 3 * 192
    assert marks(lambda t, x: activation(t, "silu", x), FLOAT32, "cuda")[1] == 0


def heads_of(x: Tensor, t: Tape, heads: int) -> Tensor:
    return t.record(t.view(x, (2, heads, 4, 6)), (x,), [], lambda saved, grad: (t.view(grad, x.shape),))


def test_flash_keeps_its_output_and_a_log_sum_per_row() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        q = heads_of(x, t, 2)
        return sdpa(t, q, q, q, None, Heads(2, 2, 6, 6), "flash")

    # x is [2, 2, 4, 6]: 96 elements; 16 rows of float32 sums and two philox words
    assert marks(run, FLOAT32, "cuda", (2, 2, 4, 6))[1] == 16 * 4 + 2 * 8
    assert marks(run, FLOAT32, "cpu", (2, 2, 4, 6))[1] == 16 * 4


def test_eager_attention_keeps_every_pair_of_positions() -> None:
    def run(t: Tape, x: Tensor) -> Tensor:
        q = heads_of(x, t, 2)
        return eager(t, q, q, q, None, Heads(2, 2, 6, 6))[0]

    # softmax over 2 x 2 x 4 x 4 pairs, which the product with the values keeps (256); copies of q, k and v (384)
    assert marks(run, FLOAT32, "cuda", (2, 2, 4, 6))[1] == 256 + 3 * 384


@pytest.mark.parametrize(("kind", "copy"), [(FLOAT32, 0), (BFLOAT16, 192)])
def test_the_loss_holds_three_times_the_logits_in_fp32(kind: Kind, copy: int) -> None:
    forward, kept, backward = marks(causal_loss, kind, "cuda")
    labels, scalars = 6 * 8, 4
    assert kept == 192 + labels + scalars  # log-probabilities, shifted labels, total weight
    assert forward == copy + 192 + labels + 2 * 4 * 8 + 2 * scalars  # beside padded labels [2, 4], loss and weight
    assert backward == 192 + 192 + 192  # log-probabilities and two gradients
