"""Against the optimizers themselves, one real step each: the bytes that they keep on the CPU; CUDA's rules by hand."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer
from transformers.training_args import OptimizerNames

from vramplan.optimizers import OPTIMIZERS
from vramplan.predict.adapters import Trainable
from vramplan.predict.optimizer import shared_states, states

# Above bitsandbytes' paging bound of 100,000; at and below its 8-bit bound of 4,096; one dimension; three dimensions.
SHAPES = ((300, 400), (64, 64), (63, 65), (5000,), (3, 40, 50))


def tensors(dtype: str = "float32") -> tuple[Trainable, ...]:
    return tuple(Trainable("weight", shape, dtype, 1) for shape in SHAPES)


def predicted(name: str, trained: tuple[Trainable, ...], *, trainer: bool = False) -> int:
    own = sum(state.bytes for tensor in trained for state in states(name, tensor, "cpu", trainer=trainer))
    return own + sum(state.bytes for state in shared_states(name, trained, "cpu", trainer=trainer))


def build(name: str, parameters: Any) -> torch.optim.Optimizer:
    """As transformers' Trainer chooses class and arguments."""
    arguments = SimpleNamespace(
        optim=OptimizerNames(name), optim_args=None, learning_rate=1e-3, weight_decay=0.0,
        adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8,
    )  # fmt: skip
    chosen, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return chosen(parameters, **options)


def kept(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of every storage that the optimizer holds."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(optimizer)}
    return sum(storages.values())


def _tensors(optimizer: Any) -> Iterator[torch.Tensor]:
    for state in (*optimizer.state.values(), getattr(optimizer, "name2qmap", {})):
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def stepped(name: str, dtype: torch.dtype) -> torch.optim.Optimizer:
    parameters = [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in SHAPES]
    optimizer = build(name, parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


# bitsandbytes 0.50.2 optim/ademamix.py asks for managed memory on the CPU too, and fails.
RUNNABLE = [name for name in OPTIMIZERS if not name.startswith("paged_ademamix")]


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_states_of_fp32_parameters(name: str) -> None:
    assert predicted(name, tensors()) == kept(stepped(name, torch.float32))


@pytest.mark.parametrize("name", ["adamw_torch", "adafactor", "adagrad", "rmsprop", "adamw_8bit", "lion_32bit"])
def test_states_of_bf16_parameters(name: str) -> None:
    assert predicted(name, tensors("bfloat16")) == kept(stepped(name, torch.bfloat16))


def test_under_the_trainer_embeddings_keep_32_bit_states() -> None:
    model = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 128, bias=False))
    stand_in = SimpleNamespace(model=model, optimizer=None, args=SimpleNamespace(weight_decay=0.0))
    stand_in.optimizer_cls_and_kwargs = (__import__("bitsandbytes").optim.AdamW, {"lr": 1e-3, "optim_bits": 8})
    stand_in.get_decay_parameter_names = lambda _: []
    optimizer = Trainer.create_optimizer(stand_in)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    table = Trainable("table", (100, 64), "float32", 1, embedding=True)
    trained = (table, Trainable("linear", (128, 64), "float32", 1))
    assert predicted("adamw_8bit", trained, trainer=True) == kept(optimizer)
    # Without the Trainer's override the table would have 8-bit states: 2 x 6,400 x 3 B less, 2 x 25 blocks x 4 B more.
    assert predicted("adamw_8bit", trained) == kept(optimizer) - 2 * 6400 * 3 + 2 * 25 * 4


def test_on_cuda_torch_keeps_step_counters_on_the_host() -> None:
    tensor = Trainable("weight", (10, 10), "float32", 1)
    assert [s.bytes for s in states("adamw_torch", tensor, "cuda", trainer=True)] == [400, 400]
    assert [s.bytes for s in states("adamw_torch_fused", tensor, "cuda", trainer=True)] == [4, 400, 400]


@pytest.mark.parametrize(("shape", "managed"), [((16, 4096), False), ((16, 11008), True)])
def test_paged_states_are_managed_from_100_000_elements(shape: tuple[int, int], managed: bool) -> None:
    # 16 x 4,096 = 65,536 stays in torch's allocator; 16 x 11,008 = 176,128 does not; block constants never leave it.
    made = states("paged_adamw_8bit", Trainable("lora_A", shape, "float32", 1), "cuda", trainer=True)
    assert [(s.label, s.managed) for s in made] == [
        ("state1", managed), ("state2", managed), ("absmax1", False), ("absmax2", False),
    ]  # fmt: skip


def test_on_cuda_maps_exist_only_for_tensors_with_8_bit_states() -> None:
    small, large = Trainable("a", (10, 10), "float32", 1), Trainable("b", (64, 64), "float32", 1)
    assert shared_states("adamw_8bit", (small,), "cuda", trainer=True) == ()
    assert [s.bytes for s in shared_states("adamw_8bit", (small, large), "cuda", trainer=True)] == [1024, 1024]
    assert [s.bytes for s in shared_states("lion_8bit", (large,), "cuda", trainer=True)] == [1024]
    assert shared_states("adamw_torch", (large,), "cuda", trainer=True) == ()
