"""An evaluation in closed form: against the trace in every phase, and what is gathered by arithmetic."""

from typing import Any

import pytest
from training_phases import TRAINING_PHASES

import vramplan
from vramplan.ledger import Component, Ledger, Phase
from vramplan.predict.forecast import forecast, ledger
from vramplan.record import Device
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.timeline import EmptyCache

LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "tie_word_embeddings": False,
}


def scenario(**keys: Any) -> Scenario:
    return scenario_from_mapping({"model": LLAMA, "load": "random", "batch": 2, "seq": 96, **keys})


@pytest.mark.parametrize(
    "keys",
    [
        {"eval": {"batch": 8}},
        {"eval": {"batch": 4, "accumulate": 1}},
        {"eval": {"batch": 4, "accumulate": 2}, "stack": "script"},
        {"eval": {"batch": 4, "accumulate": 5}, "method": "lora", "stack": {"autocast": False}},
        {"eval": {"batch": 4, "accumulate": 3}, "quant": {"type": "int8"}},
    ],
    ids=["loss", "one", "script", "16-bit", "int8"],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_trace_agrees(keys: dict[str, Any], device: Device) -> None:
    wanted = scenario(**keys)
    closed, traced = (vramplan.predict(wanted, engine, device=device).ledger for engine in ("analytic", "trace"))
    assert closed.phases == traced.phases == (Phase.LOAD, *TRAINING_PHASES, Phase.EVALUATION)
    # unsplit blocks weigh in a model of a few MiB: the replay's share of them is the allocator's
    rounding = [found.bytes(Phase.EVALUATION, Component.ALLOCATOR) for found in (closed, traced)]
    held = [found.allocated(Phase.EVALUATION) - own for found, own in zip((closed, traced), rounding, strict=True)]
    assert held[0] == pytest.approx(held[1], rel=0.01)


def test_an_evaluation_on_the_cpu_drops_nothing_and_takes_the_flash_kernel() -> None:
    config = {"model_type": "gpt2", "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 512}
    wanted = [
        scenario(model={**config, "attn_pdrop": drops}, seq=256, attention="sdpa", eval={"batch": 64})
        for drops in (0.1, 0.0)
    ]
    # in training, attention that drops weights is the math kernel's on a CPU
    found = [vramplan.predict(each, device="cpu") for each in wanted]
    assert [each.attention for each in found] == [("math",), ("flash",)]
    assert len({each.ledger.allocated(Phase.EVALUATION) for each in found}) == 1


def evaluated(device: Device = "cuda", **settings: int) -> Ledger:
    return ledger(Scenario.load("llama-3.1-8b", batch=1, seq=1024, eval=settings), device)


def test_gathered_logits_are_there_twice_at_the_last_step() -> None:
    # batch 1 x 1024 tokens x 128,256 words in fp32, under autocast, as accelerate hands them out
    logits = 1024 * 128_256 * 4
    assert evaluated(batch=1, accumulate=16).bytes(Phase.EVALUATION, Component.LOGITS) == (15 + 16 + 1) * logits
    more = evaluated(batch=1, accumulate=17).allocated(Phase.EVALUATION)
    # one step's labels more, 8 bytes a token: theirs are put together after the logits
    assert more - evaluated(batch=1, accumulate=16).allocated(Phase.EVALUATION) == 2 * logits + 8 * 1024


def test_many_steps_cost_no_time_and_stay_linear() -> None:
    logits = 1024 * 128_256 * 4
    found = evaluated(batch=1, accumulate=1013).bytes(Phase.EVALUATION, Component.LOGITS)
    assert found == 2 * 1013 * logits


def test_the_loss_alone_gathers_nothing_and_the_batch_is_the_trainings_by_default() -> None:
    alone = evaluated()
    assert alone.allocated(Phase.EVALUATION) < evaluated(batch=1, accumulate=2).allocated(Phase.EVALUATION)
    assert alone.allocated(Phase.EVALUATION) < alone.allocated(Phase.BACKWARD)
    settings = Scenario.load("llama-3.1-8b", batch=3, eval={"accumulate": 0}).evaluation
    assert settings is not None
    assert settings.batch == 3


def test_a_step_is_the_same_with_and_without_an_evaluation() -> None:
    without, with_one = ledger(scenario(), "cpu"), ledger(scenario(eval={"batch": 64}), "cpu")
    assert [with_one.allocated(phase) for phase in without.phases] == [without.allocated(p) for p in without.phases]
    assert with_one.steady == without.steady
    assert with_one.peak_phase is Phase.EVALUATION


def test_outputs_held_into_the_next_step_are_held_meanwhile() -> None:
    held = scenario(stack={"base": "script", "outputs": "held-next"}, eval={"batch": 4, "accumulate": 2})
    timeline = forecast(held, "cpu").timeline.ledger({})
    assert timeline.phases[-1] is Phase.EVALUATION
    assert timeline.allocated(Phase.EVALUATION) == ledger(held, "cpu").allocated(Phase.EVALUATION)


def test_a_loss_in_chunks_leaves_no_logits_to_gather() -> None:
    found = ledger(scenario(stack={"base": "script", "loss": "chunked"}, eval={"batch": 4, "accumulate": 3}), "cuda")
    torch = ledger(scenario(stack="script", eval={"batch": 4, "accumulate": 3}), "cuda")
    # a chunk's own logits, 4 x 96 tokens of 2,048 words, against those of 2 + 3 steps and the copies of the loss
    assert found.bytes(Phase.EVALUATION, Component.LOGITS) < torch.bytes(Phase.EVALUATION, Component.LOGITS) / 2


def test_liger_makes_logits_where_nothing_is_trained() -> None:
    liger, torch = (
        ledger(scenario(stack={"loss": loss}, eval={"batch": 4, "accumulate": 3}), "cuda")
        for loss in ("liger", "torch")
    )
    assert liger.of(Phase.EVALUATION) == torch.of(Phase.EVALUATION)


def test_the_cache_is_emptied_when_what_was_gathered_has_gone_to_the_host() -> None:
    def empties(accumulate: int, stack: str) -> int:
        settings = {"batch": 4, "accumulate": accumulate}
        run = forecast(scenario(eval=settings, stack={"base": stack, "upcast": "none"}), "cuda").timeline
        return sum(isinstance(event, EmptyCache) for event in run.events())

    assert empties(2, "hf-trainer") == 3  # before training, between two steps, and after the second
    assert empties(0, "hf-trainer") == 1
    assert empties(2, "script") == 0
