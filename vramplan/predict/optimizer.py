"""What an optimizer keeps per parameter tensor between steps (torch 2.13, bitsandbytes 0.50.2, transformers 5.17)."""

from enum import Enum, auto
from typing import NamedTuple

from vramplan.optimizers import Family, Optimizer, optimizer
from vramplan.predict.adapters import Trainable
from vramplan.record import Device

FP32 = 4
#: bitsandbytes optim/optimizer.py: `min_8bit_size=4096`, smaller tensors keep fp32 states.
MIN_8BIT_SIZE = 4096
#: bitsandbytes optim/optimizer.py init_state: `blocksize = 256`.
STATE_BLOCK = 256
#: bitsandbytes optim/optimizer.py get_state_buffer: `p.numel() < 1e5` is not paged.
MIN_PAGED_SIZE = 100_000
#: bitsandbytes optim/optimizer.py fill_qmap: 256 fp32 values each, one copy per optimizer, shared by all its tensors.
QMAP_BYTES = 256 * 4


class Extent(Enum):
    """What a state has a number for."""

    ELEMENTS = auto()  # for each of the parameter's
    BLOCKS = auto()  # for each block of them
    ROWS = auto()
    COLUMNS = auto()
    ONE = auto()  # for the whole parameter
    CODES = auto()  # for each value of an 8-bit code


class State(NamedTuple):
    """One tensor that the optimizer keeps for a parameter tensor."""

    label: str
    bytes: int
    managed: bool = False
    """In CUDA managed (unified) memory: outside torch's allocator, moved to the host under pressure."""
    extent: Extent = Extent.ELEMENTS


class Buffers(NamedTuple):
    """How many buffers of the parameter's size a bitsandbytes optimizer's first and second state have."""

    first: int
    second: int


#: bitsandbytes optim/{adamw,lion,rmsprop,ademamix}.py: two states or one; AdEMAMix doubles the first.
_BUFFERS = {
    Family.ADAMW: Buffers(1, 1),
    Family.LION: Buffers(1, 0),
    Family.RMSPROP: Buffers(1, 0),
    Family.ADEMAMIX: Buffers(2, 1),
}


def states(name: str, tensor: Trainable, device: Device, *, trainer: bool) -> tuple[State, ...]:
    """The tensors kept on the device (or in managed memory) for one `tensor`, in the order in which they are made.

    `trainer`: whether transformers' Trainer makes the optimizer, which leaves embeddings' states in 32 bits.
    """
    kind, size = optimizer(name), tensor.bytes
    if kind.bitsandbytes:
        return _bnb_states(kind, tensor, device, trainer=trainer)
    if kind.family is Family.ADAMW:
        step = _step_scalar(device, on_device=kind.fused)
        return (*step, State("exp_avg", size), State("exp_avg_sq", size))
    if kind.family is Family.ADAGRAD:
        return (*_step_scalar(device), State("sum", size))
    if kind.family is Family.RMSPROP:
        return (*_step_scalar(device), State("square_avg", size))
    if kind.family is Family.ADAFACTOR:
        return _adafactor_states(tensor)
    return ()  # sgd: transformers passes no momentum


def shared_states(name: str, tensors: tuple[Trainable, ...], device: Device, *, trainer: bool) -> tuple[State, ...]:
    """What an 8-bit optimizer keeps once: its quantisation maps.

    Both are made on the CPU at once (`fill_qmap`); the first tensor with 8-bit states moves those that its family uses.
    """
    kind = optimizer(name)
    if not kind.eight_bit:
        return ()
    both = tuple(State(f"qmap{i}", QMAP_BYTES, extent=Extent.CODES) for i in (1, 2))
    if device == "cpu":
        return both
    if not any(eight_bit(kind, tensor, trainer=trainer) for tensor in tensors):
        return ()
    return both if _BUFFERS[kind.family].second else both[:1]


def _step_scalar(device: Device, *, on_device: bool = False) -> tuple[State, ...]:
    """torch/optim/adamw.py: `step` is a one-element CPU tensor, unless fused or capturable."""
    return (State("step", FP32, extent=Extent.ONE),) if on_device or device == "cpu" else ()


def eight_bit(kind: Optimizer, tensor: Trainable, *, trainer: bool) -> bool:
    """Whether the states of `tensor` have 8 bits: those of small tensors don't, nor, under the Trainer, embeddings'
    (transformers trainer.py create_optimizer: `register_module_override(module, "weight", {"optim_bits": 32})`)."""
    return kind.eight_bit and tensor.numel >= MIN_8BIT_SIZE and not (trainer and tensor.embedding)


def _bnb_states(kind: Optimizer, tensor: Trainable, device: Device, *, trainer: bool) -> tuple[State, ...]:
    buffers = _BUFFERS[kind.family]
    managed = kind.paged and device == "cuda" and tensor.numel >= MIN_PAGED_SIZE
    if not eight_bit(kind, tensor, trainer=trainer):
        first = State("state1", buffers.first * tensor.numel * FP32, managed)
        return (first, *((State("state2", tensor.numel * FP32, managed),) if buffers.second else ()))
    blocks = -(-tensor.numel // STATE_BLOCK)
    made = [State("state1", buffers.first * tensor.numel, managed)]
    if buffers.second:
        made.append(State("state2", tensor.numel, managed))
    made.append(State("absmax1", buffers.first * blocks * FP32, extent=Extent.BLOCKS))
    if buffers.second:
        made.append(State("absmax2", blocks * FP32, extent=Extent.BLOCKS))
    return tuple(made)


def _adafactor_states(tensor: Trainable) -> tuple[State, ...]:
    """transformers/optimization.py Adafactor: fp32 row and column sums, and the root mean square of the parameter."""
    rms = State("RMS", FP32, extent=Extent.ONE)
    if len(tensor.shape) < 2:
        return (State("exp_avg_sq", tensor.numel * FP32), rms)
    *_, rows, columns = tensor.shape
    lead = tensor.numel // (rows * columns)
    return (
        State("exp_avg_sq_row", lead * rows * FP32, extent=Extent.ROWS),
        State("exp_avg_sq_col", lead * columns * FP32, extent=Extent.COLUMNS),
        rms,
    )
