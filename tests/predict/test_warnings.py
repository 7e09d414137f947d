"""What is said beside the numbers of a run, where no other test is of it."""

import pytest
from msgspec.structs import replace
from real_models import scenario

from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import ledger
from vramplan.predict.levers import levers
from vramplan.record import Device
from vramplan.scenario import Checkpointing, Scenario
from vramplan.units import human

LIGER = {"kernels": "liger"}
INT8 = {"quant": {"type": "int8"}, "batch": 4, "seq": 256}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_int8_under_non_reentrant_checkpointing_is_explained(device: Device) -> None:
    given = scenario("llama", **INT8)
    changed = replace(given, checkpointing=Checkpointing.REENTRANT)
    saving = ledger(given, device).peak - ledger(changed, device).peak
    (found,) = [text for text in predict_analytic(given, device=device).warnings if "MatMul8bitLt" in text]
    assert found.endswith(f"checkpointing: reentrant takes {human(saving)} less at the peak")
    assert not any("MatMul8bitLt" in text for text in predict_analytic(changed, device=device).warnings)


@pytest.mark.parametrize(("model", "told"), [("falcon-7b", True), ("mixtral-8x7b-v0.1", True), ("llama-2-7b", False)])
def test_what_bitsandbytes_leaves_as_it_is_is_said(model: str, told: bool) -> None:
    for quant in ("nf4", "int8"):
        said = predict_analytic(Scenario.load(model, seq=64, quant={"type": quant})).warnings
        assert any("of the parameters are quantised" in text for text in said) is told


def test_what_tuning_ligers_experts_takes_is_said() -> None:
    attention = {"lora": {"targets": ["q_proj"]}}
    found = [
        any("LIGER_FUSED_MOE_AUTOTUNE" in text for text in predict_analytic(scenario(model, **keys)).warnings)
        for model, keys in (
            ("mixtral", {"stack": {"kernels": "liger"}} | attention),
            ("mixtral", {"stack": {"kernels": ["rope", "rms_norm"]}} | attention),
            ("llama", {"stack": {"kernels": "liger"}}),
        )
    ]
    assert found == [True, False, False]


@pytest.mark.parametrize("keys", [{"quant": {"type": "nf4"}}, {"checkpointing": False}, {"method": "inference"}])
def test_it_is_said_of_no_other_run(keys: dict[str, object]) -> None:
    found = predict_analytic(scenario("llama", **INT8 | keys)).warnings
    assert not any("MatMul8bitLt" in text for text in found)


def test_kernels_that_liger_has_not_for_the_family_are_told() -> None:
    attention = {"targets": ["q_proj"]}
    mixture = scenario("deepseek_v2", stack={"kernels": ["rope", "rms_norm"]}, lora=attention)
    assert "Liger has no rope for deepseek_v2, which keeps transformers'" in predict_analytic(mixture).warnings
    assert not any("Liger has no" in text for text in predict_analytic(scenario("llama", stack=LIGER)).warnings)


def test_a_cpu_has_no_kernels_of_ligers_and_none_is_proposed() -> None:
    asked = scenario("llama", stack=LIGER, method="qlora")
    assert any("none for the CPU" in text for text in predict_analytic(asked, device="cpu").warnings)
    plain = predict_analytic(scenario("llama", batch=8, seq=256), device="cpu")
    assert not any(lever.scenario.runs_liger for lever in levers(plain, n=20))


def test_what_is_not_paged_is_said_of_cards_alone() -> None:
    wanted = scenario("llama", optimizer="paged_adamw_32bit", lora={"rank": 1})
    on_card, on_cpu = (predict_analytic(wanted, device=device).warnings for device in ("cuda", "cpu"))
    assert any("no optimizer state is paged" in text for text in on_card)
    assert not any("paged" in text for text in on_cpu)
