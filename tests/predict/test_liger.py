"""Which of Liger's kernels a family gets, and what is refused."""

from typing import Any

import msgspec
import pytest

from vramplan.errors import UsageError
from vramplan.ledger import Phase
from vramplan.predict.engine import predict_analytic
from vramplan.predict.liger import fuses_loss, patched
from vramplan.scenario import Checkpointing, Scenario
from vramplan.stacks import LayerKernel
from vramplan.targets import resolve


def scenario(model: str, **stack: Any) -> Scenario:
    return resolve(model, {"stack": {"base": "script", **stack}, "gpu": "h200"}).single("the test")


def test_asked_for_are_all_some_or_none() -> None:
    assert patched(scenario("llama-3.2-1b")).kernels == frozenset()
    assert patched(scenario("llama-3.2-1b", kernels="torch")).kernels == frozenset()
    assert patched(scenario("llama-3.2-1b", kernels="liger")).kernels == frozenset(LayerKernel)
    assert patched(scenario("llama-3.2-1b", kernels=["mlp", "rope"])).kernels == {LayerKernel.ROPE, LayerKernel.MLP}
    assert patched(scenario("llama-3.2-1b", kernels="rms_norm")).kernels == {LayerKernel.RMS_NORM}


def test_what_liger_does_not_know_of_a_family_stays_its_own() -> None:
    assert LayerKernel.ROPE not in patched(scenario("deepseek-v2-lite", kernels="liger")).kernels
    assert LayerKernel.MLP not in patched(scenario("gpt-oss-20b", kernels="liger")).kernels


@pytest.mark.parametrize(
    ("model", "stack", "words"),
    [
        ("gpt2", {"loss": "liger"}, "no fused loss for gpt2"),
        ("granite-3.3-8b", {"loss": "liger"}, "no fused loss for granite"),
        ("gpt2", {"kernels": "liger"}, "none for gpt2"),
    ],
)
def test_where_nothing_would_be_replaced_it_is_refused(model: str, stack: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        predict_analytic(scenario(model, **stack))
    assert "llama" in caught.value.hint


def test_granite_has_the_kernels_alone() -> None:
    assert not fuses_loss("granite")
    ours = scenario("granite-3.3-8b", kernels="liger")
    forward = [
        predict_analytic(msgspec.structs.replace(one, checkpointing=Checkpointing.OFF)).ledger.allocated(Phase.FORWARD)
        for one in (ours, scenario("granite-3.3-8b"))
    ]
    assert forward[0] < forward[1]


def test_nothing_is_patched_where_nothing_is_trained() -> None:
    generating = resolve("llama-3.2-1b", {"method": "inference", "stack": {"kernels": "liger"}}).single("the test")
    assert patched(generating).kernels == frozenset()
