"""The loop: its phases, what it holds, its loss kernels."""

from typing import Any

import pytest
import torch
from tiny_models import LLAMA, tiny
from torch import Tensor

from vramplan import stacks
from vramplan.errors import CannotRun
from vramplan.ledger import Component, Phase
from vramplan.training import loss
from vramplan.training.run import set_up
from vramplan.training.step import TrainingStep

CPU = torch.device("cpu")
GEMMA2 = {
    "model_type": "gemma2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 256,
    "final_logit_softcapping": 0.1,
}


class Diary:
    """A meter that writes down the phases and what was named in them."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.named: set[tuple[Phase, Component]] = set()

    def enter(self, phase: Phase) -> None:
        self.phases.append(phase)

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        self.named.add((self.phases[-1], component))


def training(diary: Diary | None = None, model: Any = LLAMA, **changes: Any) -> TrainingStep:
    step = set_up(tiny(model=model, **changes), CPU, diary or Diary())
    assert isinstance(step, TrainingStep)
    return step


def test_phases_come_in_order_once_per_micro_batch() -> None:
    diary = Diary()
    step = training(diary, grad_accum=2)
    assert set(diary.phases) == {Phase.LOAD}
    diary.phases.clear()
    step.run()
    micro = [Phase.FORWARD, Phase.LOSS, Phase.BACKWARD]
    assert diary.phases == [Phase.FORWARD, *micro, *micro, Phase.STEP]


def test_a_chunked_loss_stays_in_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", 16)  # eight chunks, whose logits backward makes again
    diary = Diary()
    step = training(diary, stack={"base": "hf-trainer", "loss": "chunked"})
    diary.phases.clear()
    step.run()
    assert diary.phases == [Phase.FORWARD, Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.STEP]


def test_gradients_and_states_are_named_where_they_appear() -> None:
    diary = Diary()
    training(diary).run()
    assert (Phase.BACKWARD, Component.GRADIENTS) in diary.named
    assert (Phase.STEP, Component.OPTIMIZER) in diary.named


@pytest.mark.parametrize("model", [LLAMA, GEMMA2], ids=["llama", "soft-capped"])
@pytest.mark.parametrize("base", ["hf-trainer", "script"])
def test_chunks_add_up_to_the_models_own_loss(model: Any, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", 40)  # does not divide 128 tokens
    changes = {"compute_dtype": "float32", "attention": "eager"}
    whole = training(model=model, stack=base, **changes)
    chunked = training(model=model, stack={"base": base, "loss": "chunked"}, **changes)
    for _ in range(2):
        assert float(chunked.run()) == pytest.approx(float(whole.run()), rel=1e-5)


@pytest.mark.parametrize("model", [LLAMA, GEMMA2], ids=["llama", "soft-capped"])
@pytest.mark.parametrize("base", ["trl", "script"])
def test_tiles_add_up_to_the_models_own_loss(model: Any, base: str) -> None:
    changes = {"compute_dtype": "float32", "attention": "eager"}
    whole = training(model=model, stack={"base": base, "loss": "torch"}, **changes)
    tiled = training(model=model, stack={"base": base, "loss": "tiled"}, **changes)
    for _ in range(2):
        # the head rounds a token's numbers in another order, and the adapters of trl's stack are bfloat16
        assert float(tiled.run()) == pytest.approx(float(whole.run()), rel=1e-5)


def test_a_head_that_is_never_called_has_its_phase() -> None:
    diary = Diary()
    step = training(diary, stack="trl")
    diary.phases.clear()
    step.run()
    assert diary.phases == [Phase.FORWARD, Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.STEP]


def test_the_chunk_size_is_the_shared_fact() -> None:
    assert loss.CHUNK_TOKENS is stacks.CHUNK_TOKENS


@pytest.mark.parametrize(("outputs", "held"), [("freed", False), ("held", False), ("held-next", True)])
def test_only_held_next_holds_outputs_between_steps(outputs: str, held: bool) -> None:
    step = training(stack={"base": "script", "outputs": outputs})
    step.run()
    assert step.release() is held
    assert step.release() is False


def test_no_gradient_is_left_after_a_step() -> None:
    step = training()
    step.run()
    assert all(parameter.grad is None for parameter in step.model.parameters())


def test_float16_scales_its_loss() -> None:
    step = training(compute_dtype="float16")
    losses = [float(step.run()) for _ in range(4)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("attention", ["sdpa:efficient", "sdpa:cudnn", "flash_attention_2"])
def test_attention_without_a_cpu_kernel_cannot_run(attention: str) -> None:
    with pytest.raises(CannotRun, match=attention):
        training(attention=attention)


@pytest.mark.parametrize("stack", [{"loss": "liger"}, {"kernels": "liger"}])
def test_liger_has_no_kernel_for_a_cpu(stack: dict[str, str]) -> None:
    with pytest.raises(CannotRun, match="Triton"):
        training(stack=stack)
