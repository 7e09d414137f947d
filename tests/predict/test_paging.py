"""Which states are paged: against bitsandbytes' own rule, run on its own optimizer; and what a full card does."""

from math import prod
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.optim import PagedAdamW8bit, PagedAdamW32bit, PagedLion8bit

import vramplan
from vramplan.api import foresee
from vramplan.explain import explain
from vramplan.ledger import Component, Phase
from vramplan.predict.paging import full_card, paging, paging_sentences
from vramplan.record import result_from_json
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import MIB

OPTIMIZERS = {
    "paged_adamw_8bit": PagedAdamW8bit,
    "paged_adamw_32bit": PagedAdamW32bit,
    "paged_lion_8bit": PagedLion8bit,
}
#: lora_A [16, 4096] has 65,536 elements, lora_A [16, 11008] has 176,128.
SHAPES = [(16, 4096), (16, 11008), (64, 4096), (4, 512), (16, 6250), (1, 99_999)]


class _OnCuda:
    """A parameter that says it is on a GPU, for bitsandbytes' choice of memory; nothing is allocated there."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.device = shape, torch.device("cuda", 0)

    def numel(self) -> int:
        return prod(self.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_paged_is_what_bitsandbytes_takes_managed_memory_for(
    name: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`get_state_buffer` of the real optimizer decides between `get_paged` and a tensor on the device."""
    asked: list[tuple[int, ...]] = []

    def managed(*shape: int, **_: Any) -> torch.Tensor:
        asked.append(shape)
        return torch.empty(0)

    monkeypatch.setattr(functional, "get_paged", managed)
    monkeypatch.setattr(functional, "fill", lambda *_: None)
    monkeypatch.setattr(torch, "zeros_like", lambda *_, **__: torch.empty(0))
    optimizer = OPTIMIZERS[name]([torch.nn.Parameter(torch.empty(1))])
    optimizer.get_state_buffer(_OnCuda(shape), dtype=torch.uint8)
    model = {"model_type": "llama", "hidden_size": shape[1], "intermediate_size": shape[1], "vocab_size": 8}
    model |= {"num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1, "head_dim": 8}
    scenario = scenario_from_mapping(
        {"model": model, "optimizer": name, "lora": {"rank": shape[0], "targets": ["q_proj"]}}
    )
    [row] = [row for row in paging(scenario).tensors if row.label == "q_proj.lora_A"]
    assert row.shape == shape
    assert row.paged == (asked == [shape])


def test_rank_16_on_a_7b() -> None:
    found = paging(Scenario.load("llama-2-7b", optimizer="paged_adamw_8bit"))
    rows = {row.label: row for row in found.tensors}
    # [16, 4096]: 65,536 elements; down_proj's lora_A is [16, 11008]: 176,128
    assert not rows["q_proj.lora_A"].paged
    assert rows["down_proj.lora_A"].paged
    # 32 layers x (down_proj A, gate_proj B, up_proj B) x 176,128 elements x 2 states of a byte
    assert found.managed == 32 * 3 * 176_128 * 2
    # 32 layers x 11 other matrices x 65,536 elements x 2 states; fp32 constants per 256 elements; two maps of 1 KiB
    constants = 32 * 4 * 2 * (3 * 176_128 + 11 * 65_536) // 256
    assert found.on_card == 32 * 11 * 65_536 * 2 + constants + 2048


def test_nothing_is_paged_on_the_cpu_by_other_optimizers_or_without_training() -> None:
    assert paging(Scenario.load("llama-2-7b", optimizer="paged_adamw_8bit"), "cpu").managed == 0
    plain = paging(Scenario.load("llama-2-7b", optimizer="adamw_8bit"))
    assert plain.managed == 0
    assert paging_sentences(plain) == ()
    assert paging(Scenario.load("llama-2-7b", method="inference")).tensors == ()


def test_sentences_name_the_rule_and_the_largest_that_stays() -> None:
    first, second = paging_sentences(paging(Scenario.load("llama-2-7b", optimizer="paged_adamw_8bit")))
    assert first.startswith(
        "bitsandbytes pages the states of tensors with at least 100,000 elements: 96 of 448 tensors"
    )
    assert "q_proj.lora_A, has 65,536 elements" in second
    whole = Scenario.load("llama-2-7b", optimizer="paged_adamw_32bit", lora={"rank": 64})
    assert paging_sentences(paging(whole))[1] == "every state may leave the card"


RESERVED = {Phase.LOAD: 300 * MIB, Phase.FORWARD: 500 * MIB, Phase.BACKWARD: 800 * MIB, Phase.STEP: 800 * MIB}


@pytest.mark.parametrize(
    ("budget", "evicted", "missing", "moved"),
    [
        (1000, 0, 0, 0),  # 800 + 100 context + 100 states: everything has room
        (950, 50, 0, 100),  # half of the states leave; a step touches all of them in turn
        (900, 100, 0, 100),  # all leave, and it still runs
        (890, 100, 10, 0),  # what cannot be moved is already too much
    ],
)
def test_a_full_card(budget: int, evicted: int, missing: int, moved: int) -> None:
    found = full_card(RESERVED, 100 * MIB, 100 * MIB, budget * MIB)
    assert (found.worst.evicted, found.worst.missing, found.moved_per_step) == tuple(
        x * MIB for x in (evicted, missing, moved)
    )
    assert found.fits == (missing == 0)
    assert found.needs_paging == (found.fits and evicted > 0)


def test_before_the_first_step_no_states_exist_and_segments_are_kept_after_it() -> None:
    load, forward, *_ = full_card(RESERVED, 0, 100 * MIB, 850 * MIB).phases
    assert (load.fixed, load.stays, load.evicted) == (300 * MIB, 0, 0)
    assert (forward.fixed, forward.stays, forward.evicted) == (800 * MIB, 50 * MIB, 50 * MIB)


def test_predictions_say_how_much_is_managed() -> None:
    scenario = Scenario.load("llama-2-7b", optimizer="paged_adamw_8bit", gpu="rtx3090")
    prediction = vramplan.predict(scenario)
    assert prediction.managed == prediction.to_json()["managed"] == paging(scenario).managed > 0
    read = result_from_json(prediction.to_json())
    assert isinstance(read, vramplan.Prediction)
    assert read.managed == prediction.managed
    assert vramplan.predict(scenario, device="cpu").managed == 0


def test_the_explanation_of_the_optimizer_says_what_is_paged() -> None:
    foreseen = foresee(Scenario.load("llama-2-7b", optimizer="paged_adamw_8bit", gpu="rtx3090"))
    [notes] = [e.notes for e in explain(foreseen) if e.component is Component.OPTIMIZER]
    assert any("100,000 elements: 96 of 448 tensors" in note for note in notes)
