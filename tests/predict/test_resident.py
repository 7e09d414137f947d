"""What is there before a step is worked out once, and asked for again by all that decides it."""

from typing import Any

import pytest
from msgspec.structs import replace
from real_models import scenario

from vramplan.predict.resident import _resident, resident
from vramplan.scenario import Checkpointing, DType, Load, Method, Scenario
from vramplan.stacks import STACKS, LossKernel, Upcast

BASE = scenario("llama", method="qlora", lora={"targets": ["q_proj", "lm_head"]}, gpu="a100-80gb")
STACK = BASE.stack
CHANGES: dict[str, dict[str, Any]] = {
    "method": {"method": Method.LORA},
    "optimizer": {"optimizer": "adamw_8bit"},
    "dtype": {"dtype": DType.FLOAT32},
    "compute dtype": {"compute_dtype": DType.FLOAT16},
    "quantisation": {"quant": replace(BASE.quant, double=False)},
    "rank": {"lora": replace(BASE.lora, rank=3)},
    "card": {"gpu": "h200"},
    "torch": {"torch": "2.12"},
    "load": {"load_from": Load.CHECKPOINT},
    "checkpoints": {"checkpointing": Checkpointing.OFF},
    "upcast": {"stack": replace(STACK, upcast=Upcast.NONE)},
    "base": {"stack": replace(STACK, base=STACKS["trl"].base)},
    "loss": {"stack": replace(STACK, loss=LossKernel.LIGER)},  # past which an adapter on lm_head is never trained
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_what_was_asked_before_changes_no_answer(changes: dict[str, Any]) -> None:
    changed: Scenario = replace(BASE, **changes)
    assert resident(BASE, "cuda") == _resident(BASE, "cuda")
    assert resident(changed, "cuda") == _resident(changed, "cuda")


def test_what_int8_biases_become_depends_on_autocast() -> None:
    # attention's output is 16-bit under autocast alone, a norm's is fp32 either way
    base = scenario("gpt2", quant={"type": "int8"}, gpu="a100-80gb")
    plain = replace(base, stack=replace(base.stack, autocast=False))
    assert resident(base, "cuda") == _resident(base, "cuda")
    assert resident(plain, "cuda") == _resident(plain, "cuda") != resident(base, "cuda")
