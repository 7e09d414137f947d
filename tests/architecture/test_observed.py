"""The functions of torch that a model's own code is told by."""

from types import ModuleType

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn import functional

from vramplan.architecture.observed.calls import Call
from vramplan.architecture.observed.mode import FUNCTIONS
from vramplan.architecture.observed.order import sort_kept_sets, sorted_sets


def test_every_function_is_one_of_torch() -> None:
    spaces = (torch, torch.Tensor, functional, torch._C._nn, torch.linalg)
    known = {getattr(getattr(space, name, None), "__name__", "") for space in spaces for name in dir(space)}
    assert set(FUNCTIONS) <= known


def test_arguments_have_the_names_of_their_places() -> None:
    call = Call(torch.masked_fill, (torch.ones(2), torch.zeros(2, dtype=torch.bool)), {"value": 3})
    assert call.name == "masked_fill"
    assert list(call.named("input", "mask")) == ["input", "mask", "value"]


def test_an_activation_in_place_leaves_its_input() -> None:
    x = torch.tensor([-1.0])
    assert Call(functional.relu, (x,), {"inplace": True}).run_on(x) == 0
    assert x == -1


def test_sets_that_a_models_file_makes_or_keeps_are_sorted() -> None:
    words = [f"{number}_attention" for number in range(50)]
    file = ModuleType("modeling")
    exec("def kinds(words): return [kind for kind in set(words)]", file.__dict__)
    model = nn.Linear(1, 1)
    model.kept = set(words)
    sort_kept_sets(model)
    with sorted_sets([file]):
        assert file.kinds(words) == [*model.kept] == sorted(words)
    assert "set" not in vars(file)
