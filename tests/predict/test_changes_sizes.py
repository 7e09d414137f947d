"""The changes of sizes: what they set, the mildest first, and where they apply."""

import pytest
from plans import small_scenario

from vramplan.ledger import Component, Phase
from vramplan.predict import changes_sizes as sizes
from vramplan.predict.changes import CHANGES
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import ledger
from vramplan.predict.levers import levers

BY_NAME = {change.name: change for change in CHANGES}


def test_a_smaller_batch_keeps_the_samples_per_step() -> None:
    variants = sizes.micro_batch(small_scenario(batch=12, grad_accum=2))
    assert [(v.batch, v.grad_accum) for v in variants] == [(8, 3), (6, 4), (4, 6), (3, 8), (2, 12), (1, 24)]


def test_fewer_targets_are_those_of_attention() -> None:
    (fewer,) = sizes.targets(small_scenario())
    assert fewer.lora.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert sizes.targets(small_scenario(lora={"targets": ["q_proj", "v_proj"]})) == ()


def test_modules_trained_whole_can_be_left_as_they_are() -> None:
    (frozen,) = sizes.saved_modules(small_scenario(lora={"modules_to_save": ["lm_head"], "modules_dtype": "float32"}))
    assert (frozen.lora.modules_to_save, frozen.lora.modules_dtype) == ((), None)
    assert sizes.saved_modules(frozen) == ()


def test_sequences_and_ranks_go_down_in_steps() -> None:
    scenario = small_scenario(seq=300, lora={"rank": 24})
    assert [v.seq for v in sizes.sequence(scenario)] == [256, 192, 128]
    assert [v.lora.rank for v in sizes.rank(scenario)] == [16, 8, 4]
    assert sizes.sequence(small_scenario(seq=128)) == ()


def test_evaluations_logits_go_to_the_host_every_step() -> None:
    given = small_scenario(batch=1, seq=128, eval={"batch": 2, "accumulate": 6})
    (changed,) = sizes.eval_accumulate(given)
    assert changed.evaluation is not None
    assert (changed.evaluation.batch, changed.evaluation.accumulate) == (2, 1)
    # fp32 logits of a step: 2 x 128 x 8,000 x 4 B. At the 6th step there are those of 5 steps, of 6 and the step's own.
    # With a single step there is the loss at the highest: its fp32 logits, as many again, and the model's 16-bit ones.
    step = 2 * 128 * 8000 * 4
    logits = [ledger(one).bytes(Phase.EVALUATION, Component.LOGITS) for one in (given, changed)]
    assert logits == [12 * step, 2 * step + step // 2]


@pytest.mark.parametrize("accumulate", [0, 1])
def test_where_nothing_is_gathered_over_steps_there_is_nothing_to_change(accumulate: int) -> None:
    assert sizes.eval_accumulate(small_scenario(eval={"batch": 2, "accumulate": accumulate})) == ()


def test_evaluations_batch_is_halved_down_to_one() -> None:
    batches = [v.evaluation.batch for v in sizes.eval_batch(small_scenario(eval={"batch": 12})) if v.evaluation]
    assert batches == [6, 3, 1]
    assert sizes.eval_batch(small_scenario(eval={"batch": 1})) == ()


def test_without_evaluation_there_is_none_to_change() -> None:
    assert sizes.eval_accumulate(small_scenario()) == sizes.eval_batch(small_scenario()) == ()


def test_the_levers_of_a_peak_in_evaluation_are_its_own() -> None:
    given = small_scenario(batch=1, seq=128, eval={"batch": 8, "accumulate": 6})
    first, second, *_ = levers(predict_analytic(given))
    assert first.label == "eval_accumulation_steps 1 instead of 6"
    assert second.label == "eval batch 4 instead of 8"


def test_ligers_logits_come_back_in_evaluation_alone() -> None:
    """Its batch is then what to change: training makes no logits."""
    given = small_scenario(batch=1, seq=128, stack={"loss": "liger", "upcast": "none"}, eval={"batch": 8})
    assert levers(predict_analytic(given))[0].label == "eval batch 4 instead of 8"
