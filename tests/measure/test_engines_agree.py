"""The closed form against the trace where attention goes ways of its own: a single key head, the math kernel."""

from typing import Any

import pytest
from training_phases import TRAINING_PHASES

import vramplan
from vramplan.ledger import Phase
from vramplan.scenario_file import scenario_from_mapping

SINGLE_HEAD = {
    "model_type": "gemma",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}
DROPPED_WEIGHTS = {"attention_dropout": 0.1, "head_dim": 64}
GROUPED = {**SINGLE_HEAD, "model_type": "llama", "num_key_value_heads": 2, "rms_norm_eps": 1e-6}


@pytest.mark.parametrize(
    ("model", "attention", "batch", "upcast"),
    [
        (SINGLE_HEAD, "eager", 1, "all"),  # repeating one head of one sample is a view ...
        (SINGLE_HEAD, "eager", 2, "all"),  # ... of two samples too, and the matrix product copies it
        (SINGLE_HEAD, "sdpa:efficient", 2, "all"),
        (GROUPED, "sdpa", 1, "all"),  # fp32 queries with grouped heads: the math kernel
        # its dropout is called by torch itself, and on CUDA keeps a mask of one byte an element there too
        (GROUPED | DROPPED_WEIGHTS, "sdpa:math", 1, "none"),
        (GROUPED, "sdpa", 1, "norms"),  # fp32 norms make fp32 queries of a 16-bit embedding; loading casts it twice
    ],
)
def test_phases_agree(model: dict[str, Any], attention: str, batch: int, upcast: str) -> None:
    stack = {"base": "script", "upcast": upcast}
    scenario = scenario_from_mapping(
        {"model": model, "attention": attention, "batch": batch, "seq": 1024, "stack": stack, "load": "random"}
    )
    closed, traced = vramplan.predict(scenario).ledger, vramplan.predict(scenario, "trace").ledger
    for phase in (Phase.LOAD, *TRAINING_PHASES):
        assert closed.allocated(phase) == pytest.approx(traced.allocated(phase), rel=0.01), phase
