"""What clipping and the optimizer allocate while they step; states and gradients exist already.

torch/optim (2.13): CUDA runs the multi-tensor (`foreach`) code, which makes its intermediates for all parameters
at once; the CPU goes parameter by parameter. bitsandbytes' CUDA kernels allocate nothing.
"""

from collections.abc import Callable, Iterable, Iterator

from vramplan.optimizers import Family, Optimizer, optimizer
from vramplan.predict.adapters import Trainable, stepped_in_order
from vramplan.predict.optimizer import eight_bit
from vramplan.predict.script import Repeated
from vramplan.predict.tape import FLOAT32, FLOATS, UINT8, Kind, Shape, Tape, Tensor
from vramplan.scenario import Scenario

#: cuda/ForeachFunctors.cuh `kChunkSize`: numbers of a gradient that one block of threads adds up.
NORM_CHUNK = 65536


def run_optimizer(t: Tape, scenario: Scenario, tensors: tuple[Trainable, ...]) -> None:
    """Allocate and free the temporaries of `clip_grad_norm_` and of the optimizer's step."""
    if scenario.stack.clip or scenario.stack.trainer:
        _clip(t, tensors)
    kind, trainer = optimizer(scenario.optimizer), scenario.stack.trainer
    turns = _in_turn(tensors, trainer=trainer)
    t.scope = scenario.optimizer
    if kind.bitsandbytes:
        if not t.cuda:
            _bitsandbytes_cpu(t, tensors, kind, trainer=trainer)
    elif kind.family is Family.ADAMW and not kind.fused:
        _foreach(t, scenario) if t.cuda else _one_by_one(t, turns)
    elif kind.family is Family.ADAGRAD:  # its gradients, times the rate, are a list of their own
        _foreach(t, scenario, lists=2) if t.cuda else _one_by_one(t, turns, divided=False)
    elif kind.family is Family.RMSPROP:
        _foreach(t, scenario) if t.cuda else _one_by_one(t, turns, divided=False)
    elif kind.family is Family.ADAFACTOR:
        _adafactor(t, turns)
    t.scope = ""


def _clip(t: Tape, tensors: tuple[Trainable, ...]) -> None:
    """torch/nn/utils/clip_grad.py: a norm per gradient, their stack; the gradients are scaled in place.

    CUDA adds chunks of a gradient up first, one list of gradients per element type (cuda/ForeachReduceOp.cu).
    """
    norms: list[Tensor] = []
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        count = sum(tensor.times for tensor in alike)
        with t.script.rounds(Repeated(count)):
            norms.append(t.new((), FLOATS[dtype], "gradient norm"))
        if t.cuda:
            t.new((count * -(-max(tensor.numel for tensor in alike) // NORM_CHUNK),), FLOAT32, "partial norms")
    stacked = t.new((sum(tensor.times for tensor in tensors),), FLOAT32, "gradient norms stacked")
    t.script.clipped = t.block(stacked)
    del norms, stacked


def _foreach(t: Tape, scenario: Scenario, *, lists: int = 1) -> None:
    """`_multi_tensor_*` of each group of parameters: the square roots of all its second moments at once, `lists` of
    such a size per element type.

    The variables keep one type's lists until the next one's are made.
    """
    ordered = stepped_in_order(scenario)
    for belongs in _groups(trainer=scenario.stack.trainer):
        held: list[Tensor] = []
        mine = [(times, tuple(filter(belongs, tensors))) for times, tensors in ordered]
        for dtype in dict.fromkeys(tensor.dtype for _, tensors in mine for tensor in tensors):
            made = []
            for times, tensors in mine * lists:
                with t.script.rounds(Repeated(times)):
                    made += [
                        t.new(tensor.shape, FLOATS[dtype], "square root of the second moment")
                        for tensor in tensors
                        if tensor.dtype == dtype
                    ]
            held = made
            del made
        del held


def _groups(*, trainer: bool) -> tuple[Callable[[Trainable], bool], ...]:
    """Which parameters belong to each of the optimizer's groups: the Trainer has one with weight decay and one without.

    `get_decay_parameter_names`: neither norms nor what is called a bias, experts' two-dimensional ones included.
    """

    def decayed(tensor: Trainable) -> bool:
        matrix = len(tensor.shape) > 1 or tensor.magnitude
        return matrix and not tensor.bias

    return (decayed, lambda tensor: not decayed(tensor)) if trainer else (lambda tensor: True,)


def _in_turn(tensors: tuple[Trainable, ...], *, trainer: bool) -> Iterator[tuple[Shape, Kind]]:
    """Parameters in the optimizer's order, repeated layers twice: enough for every pair of neighbours.

    The Trainer puts those with weight decay first; a script hands the model's parameters over as they are. The head
    follows the last layer, or the norm behind it.
    """
    for belongs in _groups(trainer=trainer):
        group = [*filter(belongs, tensors)]
        inside = [tensor for tensor in group if tensor.times > 1]
        outside = [tensor for tensor in group if tensor.times == 1]
        for tensor in (*outside[:1], *inside, *inside, *outside[1:]):
            yield tensor.shape, FLOATS[tensor.dtype]


def _one_by_one(t: Tape, turns: Iterable[tuple[Shape, Kind]], *, divided: bool = True) -> None:
    """`denom = (exp_avg_sq.sqrt() / correction).add_(eps)`; the last one lives until the next is made."""
    denominator: Tensor | None = None
    for shape, kind in turns:
        root = t.new(shape, kind, "square root of the second moment")
        denominator = t.new(shape, kind, "denominator") if divided else root
        del root
    del denominator


def _adafactor(t: Tape, turns: Iterable[tuple[Shape, Kind]]) -> None:
    """transformers/optimization.py Adafactor.step: `update` is bound several times, the last one outlives its turn."""
    update: Tensor | None = None
    for shape, kind in turns:
        wide = [] if kind is FLOAT32 else [t.new(shape, FLOAT32, what) for what in ("gradient fp32", "parameter fp32")]
        squared = t.new(shape, FLOAT32, "squared gradient")
        update = t.new(shape, FLOAT32, "squared gradient + eps")
        del squared
        factors = t.new(shape, FLOAT32, "row factors times column factors")
        update = factors
        del factors, wide
    del update


def _bitsandbytes_cpu(t: Tape, tensors: tuple[Trainable, ...], kind: Optimizer, *, trainer: bool) -> None:
    """bitsandbytes/backends/cpu/ops.py: tensor operations in fp32, one parameter at a time."""
    for tensor in tensors:
        update = _update_8bit if eight_bit(kind, tensor, trainer=trainer) else _update_32bit
        update(t, tensor, kind.family)


def _common(t: Tape, tensor: Trainable) -> list[Tensor]:
    """The gradient, scaled, and a copy of the parameter unless it is fp32 already."""
    grad = t.new(tensor.shape, FLOAT32, "scaled gradient")
    return [grad] if tensor.dtype == FLOAT32.name else [grad, t.new(tensor.shape, FLOAT32, "parameter fp32")]


def _update_32bit(t: Tape, tensor: Trainable, family: Family) -> None:
    """`_optimizer_update_32bit_cpu`: Adam's `state1 / (state2.sqrt() + eps)`; Lion's signs; AdEMAMix's mixture."""
    held = _common(t, tensor)
    root = t.new(tensor.shape, FLOAT32, "square root or momentum")
    denominator = t.new(tensor.shape, FLOAT32, "denominator or update")
    if family is not Family.LION:
        del root
        root = t.new(tensor.shape, FLOAT32, "update")
    if family is Family.ADEMAMIX:
        held.append(t.new(tensor.shape, FLOAT32, "mixed momentum"))
    del root, denominator, held


def _update_8bit(t: Tape, tensor: Trainable, family: Family) -> None:
    """`_optimizer_update_8bit_blockwise_cpu`: states to fp32 first; they are quantised again at the end."""
    # AdEMAMix has two first states, dequantised apart, stacked, and stacked again when they are updated
    states = {Family.LION: 1, Family.RMSPROP: 1, Family.ADAMW: 2, Family.ADEMAMIX: 7}[family]
    held = [t.new(tensor.shape, FLOAT32, "state fp32") for _ in range(states)]
    held += _common(t, tensor)
    root = None if family is Family.ADEMAMIX else t.new(tensor.shape, FLOAT32, "square root")
    if family is Family.LION:
        held.append(t.new(tensor.shape, FLOAT32, "scaled gradient's share"))
    if family is not Family.RMSPROP:
        held.append(t.new(tensor.shape, FLOAT32, "denominator"))
    del root
    packed = t.new(tensor.shape, UINT8, "state quantised again")
    del held, packed
