"""DoRA in closed form against peft's own code on fake tensors and on the CPU."""

from typing import Any

import pytest

from tests.predict.real_models import GPT2, LLAMA, MIXTRAL, PHI3
from tests.predict.real_steps import real_peaks
from tests.predict.test_event_order import SCRIPT, moves
from vramplan.errors import CannotRun, UsageError
from vramplan.ledger import Phase
from vramplan.measure.trace import run_trace
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import forecast
from vramplan.predict.overheads import CUBLAS_WORKSPACE
from vramplan.predict.step import step_parts
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.timeline import Timeline

QWEN2 = {**LLAMA, "model_type": "qwen2"}
DROPPED = {"lora": {"rank": 8, "dora": True, "dropout": 0.1}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "under autocast": (LLAMA, {}),
    "dropout": (LLAMA, DROPPED),
    "dropout in fp32, biases": (QWEN2, {**DROPPED, "stack": "script"}),
    "biases under autocast": (QWEN2, {"checkpointing": "reentrant"}),
    "in 16 bits, without checkpoints": (LLAMA, {"stack": SCRIPT, "checkpointing": False}),
    "float16": (LLAMA, {"compute_dtype": "float16"}),
    "in 8 bits": (LLAMA, {"quant": {"type": "int8"}}),
    "one projection for all": (PHI3, {"quant": {"double": False}}),
    "transposed": (GPT2, {}),
    "transposed, nothing quantised": (GPT2, {"method": "lora"}),
    "16-bit adapters": (LLAMA, {"method": "lora", "lora": {"rank": 8, "dora": True, "dtype": "bfloat16"}}),
    "TRL": (LLAMA, {"stack": "trl", "grad_accum": 2}),
}


def scenario(model: dict[str, Any], **keys: Any) -> Scenario:
    mapping = {"model": {**model}, "lora": {"rank": 8, "dora": True}, "load": "random", "batch": 2, "seq": 96}
    return scenario_from_mapping({**mapping, "gpu": "a100-80gb", **keys})


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("name", CASES)
def test_the_order_is_pefts_own(name: str) -> None:
    model, keys = CASES[name]
    wanted = scenario(model, **keys)
    ours, theirs = forecast(wanted, "cuda").timeline, run_trace(wanted, "cuda").timeline
    # the workspace of the first product stands before the first adapter, and not within it
    kept = [[move for move in moves(one.events()) if move != ("take", CUBLAS_WORKSPACE)] for one in (ours, theirs)]
    assert kept[0] == kept[1]
    assert ours.ledger({}).allocated(Phase.LOAD) == theirs.ledger({}).allocated(Phase.LOAD)


@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_real_step_takes_what_is_predicted(dropout: float) -> None:
    wanted = scenario(LLAMA, gpu="", lora={"rank": 8, "dora": True, "dropout": dropout})
    ours = Timeline(step_parts(wanted, "cpu")).ledger({})
    real = real_peaks(wanted)
    for phase in (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD):
        assert ours.allocated(phase) == pytest.approx(real[phase], rel=0.005), phase


def test_magnitudes_are_trained_in_fp32_where_trl_casts_the_rest() -> None:
    # Llama's layer, hidden 64: q and o have 64 outputs, k and v 32, gate and up 160, down 64: 576 in each of 2 layers
    parts = {stack: predict_analytic(scenario(LLAMA, stack=stack)) for stack in ("hf-trainer", "trl")}
    plain = predict_analytic(scenario(LLAMA, lora={"rank": 8}))
    assert parts["trl"].parameters.trainable - plain.parameters.trainable == 2 * 576
    assert parts["hf-trainer"].parameters.trainable == parts["trl"].parameters.trainable


def test_what_peft_and_the_closed_form_do_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="no DoRA for adapters of experts"):
        predict_analytic(scenario(MIXTRAL))
    with pytest.raises(CannotRun, match="merging DoRA"):
        predict_analytic(scenario(LLAMA, method="merge"))
