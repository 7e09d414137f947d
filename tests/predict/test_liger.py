"""Which of Liger's kernels a family gets, and what is refused."""

from inspect import signature
from typing import Any

import pytest

from vramplan.errors import UsageError
from vramplan.predict.decoder import STYLES
from vramplan.predict.engine import predict_analytic
from vramplan.predict.families import CLASSIC
from vramplan.predict.liger import LIGER, NOTHING, patched, trainers_choice
from vramplan.scenario import Scenario
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


def test_what_is_said_of_families_is_ligers_own_table() -> None:
    pytest.importorskip("triton", reason="Triton is for Linux")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    for family in {*STYLES, *CLASSIC}:
        apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(family)
        assert (family in LIGER) is (apply is not None)
        defaults = {} if apply is None else {name: p.default for name, p in signature(apply).parameters.items()}
        has = LIGER.get(family, NOTHING)
        assert has.loss is defaults.get("fused_linear_cross_entropy", False)
        assert (LayerKernel.ROPE in has.kernels) is defaults.get("rope", False)
        assert (LayerKernel.MLP in has.kernels) is defaults.get(has.gate, False)


def test_the_trainers_configuration_switches_off() -> None:
    every = tuple(LayerKernel)
    assert trainers_choice("llama", {}) == (True, every)
    assert trainers_choice("llama", {"swiglu": False, "geglu": True}) == (True, every[:2])
    assert trainers_choice("gemma2", {"swiglu": False, "fused_linear_cross_entropy": False}) == (False, every)
    assert trainers_choice("granite", {}) == (False, every)
    assert trainers_choice("gpt2", {}) == (False, ())


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


def test_nothing_is_patched_where_nothing_is_trained() -> None:
    generating = resolve("llama-3.2-1b", {"method": "inference", "stack": {"kernels": "liger"}}).single("the test")
    assert patched(generating).kernels == frozenset()
