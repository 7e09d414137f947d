"""One operation at a time: what it keeps for backward and the most that its backward holds, by hand.

x is [2, 3, 8]: 48 elements, 192 bytes in float32, 96 in bfloat16.
"""

import pytest
import torch
from operation_marks import marks
from tape_events import events
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from vramplan.predict.activations import activation
from vramplan.predict.backward import run_backward
from vramplan.predict.checkpoints import run_checkpointed
from vramplan.predict.observed import choices, reductions
from vramplan.predict.operations import dropout, indexing, layer_norm, mul, rms_norm, softmax, split
from vramplan.predict.tape import BFLOAT16, BOOL, FLOAT16, FLOAT32, Tape, Tensor
from vramplan.scenario import Checkpointing


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


class Called(TorchDispatchMode):
    """How often each operation is called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))  # type: ignore[operator]


SHAPE = (2, 3, 8)
MASK = torch.ones(8, dtype=torch.bool)
#: What torch calls it, how often its backward does that, torch's and ours, and what ours calls its result.
SAVING = {
    "clamp": ("aten.clamp.default", 0, lambda x: x.clamp(0, 1),
              lambda t, x: indexing.clamp(t, x, 2, FLOAT32), "clamped"),
    "masked_fill": ("aten.masked_fill.Scalar", 1, lambda x: x.masked_fill(MASK, 0.0),
                    lambda t, x: indexing.masked_fill(t, x, t.new((8,), BOOL, "mask")), "masked copy"),
    "topk": ("aten.topk.default", 0, lambda x: x.topk(2)[0],
             lambda t, x: indexing.topk(t, x, (2, 3, 2), "best")[0], "best"),
    "where": ("aten.where.self", 1, lambda x: torch.where(MASK, x, torch.zeros(())),
              lambda t, x: choices.where(t, t.new((8,), BOOL, "mask"), (x, None), x.shape, FLOAT32),
              "one or the other"),
    "maximum": ("aten.maximum.default", 0, lambda x: torch.maximum(x, torch.zeros(SHAPE)),
                lambda t, x: choices.larger(t, x, t.new(x.shape, FLOAT32, "other"), x.shape, FLOAT32), "larger"),
    "var": ("aten.var.correction", 0, lambda x: x.var(-1),
            lambda t, x: reductions.reduced(t, x, (2, 3), FLOAT32, "var"), "var"),
    "dropout on the CPU": ("aten.mul.Tensor", 1, lambda x: torch.nn.functional.dropout(x, 0.5), dropout,
                           "dropout output"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAVING)
def test_a_recomputation_that_ends_with_an_input_never_makes_the_result(case: str) -> None:
    name, in_backward, real, ours, label = SAVING[case]
    x = torch.randn(SHAPE, requires_grad=True)
    y = checkpoint(real, x, use_reentrant=False)
    with Called() as called:
        y.backward(torch.ones_like(y))
    t = Tape("cpu")
    given = t.new(SHAPE, FLOAT32, "x")
    t.require_grad(given)
    out = run_checkpointed(t, lambda again: ours(t, again), given, Checkpointing.NON_REENTRANT)
    run_backward(t, out, t.new(out.shape, out.kind, "incoming"))
    made = events(t).count("+" + label)
    assert made == 1 + called.names.count(name) - in_backward == (2 if case == "topk" else 1)
