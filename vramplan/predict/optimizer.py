"""What an optimizer keeps per parameter tensor between steps (torch 2.13, bitsandbytes 0.50.2, transformers 5.17)."""

from typing import NamedTuple

from vramplan.optimizers import check_optimizer
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


class State(NamedTuple):
    """One tensor that the optimizer keeps for a parameter tensor."""

    label: str
    bytes: int
    managed: bool = False
    """In CUDA managed (unified) memory: outside torch's allocator, moved to the host under pressure."""


class Family(NamedTuple):
    """A bitsandbytes optimizer: how many buffers of the parameter's size its first and second state have."""

    first: int
    second: int


#: bitsandbytes optim/{adamw,lion,rmsprop,ademamix}.py: two states or one; AdEMAMix doubles the first.
_FAMILIES = {"adamw": Family(1, 1), "lion": Family(1, 0), "rmsprop": Family(1, 0), "ademamix": Family(2, 1)}


class Bnb(NamedTuple):
    """What a name says to transformers (trainer_optimizer.py _get_bitsandbytes_optimizer)."""

    family: str
    eight_bit: bool
    paged: bool


def bnb_optimizer(name: str) -> Bnb | None:
    """The bitsandbytes optimizer that transformers builds for `name`; None when it is not one of bitsandbytes'."""
    check_optimizer(name)
    if name in ("adamw_torch", "adamw_torch_fused", "sgd", "adafactor", "adagrad", "rmsprop"):
        return None
    family = next(family for family in _FAMILIES if family in name)
    return Bnb(family, "8bit" in name, "paged" in name)


def states(name: str, tensor: Trainable, device: Device, *, trainer: bool) -> tuple[State, ...]:
    """The tensors kept on the device (or in managed memory) for one `tensor`, in the order in which they are made.

    `trainer`: whether transformers' Trainer makes the optimizer, which leaves embeddings' states in 32 bits.
    """
    bnb = bnb_optimizer(name)
    if bnb is not None:
        return _bnb_states(bnb, tensor, device, trainer=trainer)
    size = tensor.bytes
    if name in ("adamw_torch", "adamw_torch_fused"):
        step = _step_scalar(device, on_device=name == "adamw_torch_fused")
        return (*step, State("exp_avg", size), State("exp_avg_sq", size))
    if name == "adagrad":
        return (*_step_scalar(device), State("sum", size))
    if name == "rmsprop":
        return (*_step_scalar(device), State("square_avg", size))
    if name == "adafactor":
        return _adafactor_states(tensor)
    return ()  # sgd: transformers passes no momentum


def shared_states(name: str, tensors: tuple[Trainable, ...], device: Device, *, trainer: bool) -> tuple[State, ...]:
    """What an 8-bit optimizer keeps once: its quantisation maps.

    Both are made on the CPU at once (`fill_qmap`); the first tensor with 8-bit states moves those that its family uses.
    """
    bnb = bnb_optimizer(name)
    if bnb is None or not bnb.eight_bit:
        return ()
    both = (State("qmap1", QMAP_BYTES), State("qmap2", QMAP_BYTES))
    if device == "cpu":
        return both
    if not any(_eight_bit(bnb, tensor, trainer=trainer) for tensor in tensors):
        return ()
    return both if _FAMILIES[bnb.family].second else both[:1]


def _step_scalar(device: Device, *, on_device: bool = False) -> tuple[State, ...]:
    """torch/optim/adamw.py: `step` is a one-element CPU tensor, unless fused or capturable."""
    return (State("step", FP32),) if on_device or device == "cpu" else ()


def _eight_bit(bnb: Bnb, tensor: Trainable, *, trainer: bool) -> bool:
    """Whether the states of `tensor` have 8 bits: those of small tensors don't, nor, under the Trainer, embeddings'
    (transformers trainer.py create_optimizer: `register_module_override(module, "weight", {"optim_bits": 32})`)."""
    return bnb.eight_bit and tensor.numel >= MIN_8BIT_SIZE and not (trainer and tensor.embedding)


def _bnb_states(bnb: Bnb, tensor: Trainable, device: Device, *, trainer: bool) -> tuple[State, ...]:
    family = _FAMILIES[bnb.family]
    managed = bnb.paged and device == "cuda" and tensor.numel >= MIN_PAGED_SIZE
    if not _eight_bit(bnb, tensor, trainer=trainer):
        first = State("state1", family.first * tensor.numel * FP32, managed)
        return (first, *((State("state2", tensor.numel * FP32, managed),) if family.second else ()))
    blocks = -(-tensor.numel // STATE_BLOCK)
    made = [State("state1", family.first * tensor.numel, managed)]
    if family.second:
        made.append(State("state2", tensor.numel, managed))
    made.append(State("absmax1", family.first * blocks * FP32))
    if family.second:
        made.append(State("absmax2", blocks * FP32))
    return tuple(made)


def _adafactor_states(tensor: Trainable) -> tuple[State, ...]:
    """transformers/optimization.py Adafactor: fp32 row and column sums, and the root mean square of the parameter."""
    rms = State("RMS", FP32)
    if len(tensor.shape) < 2:
        return (State("exp_avg_sq", tensor.numel * FP32), rms)
    *_, rows, columns = tensor.shape
    lead = tensor.numel // (rows * columns)
    return (
        State("exp_avg_sq_row", lead * rows * FP32),
        State("exp_avg_sq_col", lead * columns * FP32),
        rms,
    )
