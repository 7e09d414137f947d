"""The closed form against the libraries on fake tensors, where the card decides: closer than a hidden state."""

from typing import Any

import pytest
from training_phases import TRAINING_PHASES

from tests.predict.real_models import LLAMA, MIXTRAL, PHI3, QWEN2
from vramplan.ledger import Phase
from vramplan.measure.trace import run_trace
from vramplan.predict.forecast import forecast
from vramplan.scenario_file import scenario_from_mapping

PLAIN = {"quant": {"type": "none"}}
#: Heads of 80, more than the efficient kernel's registers hold.
WIDE = {**LLAMA, "hidden_size": 320, "num_key_value_heads": 4}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an adapter around a 16-bit layer": (LLAMA, {"method": "lora", "checkpointing": False, "stack": "script", **PLAIN}),
    "autocast to another 16-bit type": (LLAMA, {"stack": {"upcast": "none", "autocast": "float16"}}),
    "efficient attention": (WIDE, {"attention": "sdpa:efficient", "checkpointing": False, "stack": {"upcast": "none"}}),
    # the query comes out of a concatenation, and the kernel's output is laid out like it
    "flash after a concatenation": (PHI3, {"checkpointing": False}),
    "what the step before left": (LLAMA, {"stack": {"base": "script", "outputs": "held-next"}}),
    "tied embeddings that are trained": ({**LLAMA, "tie_word_embeddings": True}, {"method": "full", **PLAIN}),
    "parameters in a script's order": (LLAMA, {"method": "full", "stack": "script", "optimizer": "adafactor", **PLAIN}),
    "one key head, which a view repeats": (
        {**LLAMA, "num_key_value_heads": 1},
        {"stack": "script", "attention": "sdpa:math", "padding": True, "checkpointing": False},
    ),
    "an adapter that Liger's loss passes by": (
        LLAMA,
        {"stack": {"loss": "liger"}, "lora": {"targets": ["q_proj", "lm_head"], "rank": 64}},
    ),
    "AdEMAMix in managed memory": (LLAMA, {"optimizer": "paged_ademamix_8bit", "lora": {"rank": 1024}}),
    "a loss in chunks": (LLAMA, {"stack": {"base": "script", "loss": "chunked"}, "seq": 1024}),
    "a loss in chunks, of one sample": (
        LLAMA,
        {"stack": {"base": "script", "loss": "chunked"}, "seq": 1024, "batch": 1},
    ),
    "Adagrad": (LLAMA, {"optimizer": "adagrad", "lora": {"rank": 256}}),
    "experts alone in fp32": (MIXTRAL, {"stack": {"upcast": "rest"}, "lora": {"targets": ["q_proj", "v_proj"]}}),
    "linear layers alone in fp32": (LLAMA, {"method": "lora", "stack": {"upcast": "rest"}, **PLAIN}),
    "biases alone in fp32": (QWEN2, {"stack": {"upcast": "rest"}, "quant": {"type": "int8"}}),
    "two element types in one optimizer": (LLAMA, {"method": "full", "stack": {"upcast": "norms"}, **PLAIN}),
}


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("name", CASES)
def test_every_phase_agrees(name: str) -> None:
    model, keys = CASES[name]
    mapping = {"model": {**model}, "load": "random", "batch": 2, "seq": 96, "gpu": "a100-80gb", **keys}
    scenario = scenario_from_mapping(mapping)
    ours, theirs = forecast(scenario, "cuda").timeline.ledger({}), run_trace(scenario, "cuda").timeline.ledger({})
    for phase in (Phase.LOAD, *TRAINING_PHASES):
        # scalars and statistics of rows; the smallest hidden state has 24,576 bytes (2 x 96 x 64 x 2)
        assert ours.allocated(phase) == pytest.approx(theirs.allocated(phase), abs=5000), phase


@pytest.mark.filterwarnings("ignore")  # the libraries' own
def test_on_the_cpu_rows_without_a_position_become_zeros_in_place() -> None:
    keys = {"model": LLAMA, "load": "random", "seq": 96, "attention": "sdpa:math", "padding": True, "batch": 2}
    scenario = scenario_from_mapping({**keys, "checkpointing": "reentrant"})
    ours, theirs = forecast(scenario, "cpu").timeline.ledger({}), run_trace(scenario, "cpu").timeline.ledger({})
    # the weights of a layer's attention have 147,456 bytes (2 x 4 heads x 96 x 96, in 16 bits)
    assert ours.allocated(Phase.FORWARD) == pytest.approx(theirs.allocated(Phase.FORWARD), abs=20_000)
