"""Linear layers: what they keep for backward and the most that their backward holds, by hand.

x is [2, 3, 8]: 48 elements, 192 bytes in float32, 96 in bfloat16.
"""

import pytest
from operation_marks import marks

from vramplan.errors import UsageError
from vramplan.predict.forecast import forecast
from vramplan.predict.linear import Adapter, Quantised, linear
from vramplan.predict.projections import Projection
from vramplan.predict.tape import BFLOAT16, FLOAT32, Tape, Tensor
from vramplan.scenario import Scenario


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
    quantised = Quantised(4, 64, double, BFLOAT16, BFLOAT16, biased=False)
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
        return four_bit(t, double=False, adapter=Adapter(a, b, dropout=False, drops=False, magnitude=None))(t, x)

    # x itself (fp32, no copy) and lora_A's output: 6 x 2 x 4 bytes
    assert marks(run, FLOAT32, "cpu")[1] == 48


def test_bitsandbytes_multiplies_no_latents_of_four_dimensions_in_8_bits() -> None:
    scenario = Scenario.load("deepseek-v2-lite", quant={"type": "int8"}, seq=64)
    with pytest.raises(UsageError, match="two or three dimensions"):
        forecast(scenario, "cuda")
    forecast(scenario, "cpu")  # where it dequantises the matrix
