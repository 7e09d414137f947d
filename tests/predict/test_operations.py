"""One operation at a time: what it keeps for backward and the most that its backward holds, by hand.

x is [2, 3, 8]: 48 elements, 192 bytes in float32, 96 in bfloat16.
"""

import pytest
from operation_marks import marks

from vramplan.predict.operations import dropout, layer_norm, mul, rms_norm, softmax, split
from vramplan.predict.operations_mlp import activation
from vramplan.predict.tape import BFLOAT16, FLOAT16, FLOAT32, Tape, Tensor


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
