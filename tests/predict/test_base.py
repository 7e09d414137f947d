"""Against transformers, bitsandbytes and peft: the whole base model's bytes, loaded, prepared, and after a step."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from real_models import MODELS, held, load, one_step, save_checkpoint, scenario

from vramplan.architecture import WeightKind
from vramplan.ledger import Component
from vramplan.predict.base import component, loaded_element, prepared_element
from vramplan.predict.quantization import is_quantized, pieces
from vramplan.predict.step import settled_biases
from vramplan.scenario import Scenario


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for family in MODELS:
        save_checkpoint(family, folder / family)
    return folder


def predicted(wanted: Scenario, stage: str) -> int:
    """Bytes of the base model at a stage: its quantised weights never change, the others do."""
    total = 0
    biases = settled_biases(wanted, "cpu") if stage == "steady" else {}
    for weight, times in (*wanted.architecture.counted, *((b, 1) for b in wanted.architecture.buffers)):
        if is_quantized(weight, wanted.quant):
            total += times * sum(piece.bytes for piece in pieces(weight, wanted.quant))
            continue
        element = (loaded_element if stage == "loaded" else prepared_element)(weight, wanted)
        total += times * weight.numel * biases.get(weight.path, element)
    return total


SCENARIOS = [
    ("llama", {"quant": {"type": "nf4", "double": True}}),
    ("llama", {"quant": {"type": "int8"}}),
    ("qwen2", {"quant": {"type": "nf4", "double": False}}),  # biases, tied head
    ("qwen2", {"quant": {"type": "fp4"}, "compute_dtype": "float16", "dtype": "bfloat16"}),
    ("gpt2", {"quant": {"type": "nf4"}}),  # Conv1D, positions, biases everywhere
    ("gpt2", {"quant": {"type": "int8"}}),  # biases take their inputs' dtypes: a norm's output, attention's
    ("mixtral", {"quant": {"type": "nf4"}}),  # experts and routers stay 16-bit
    ("phi3", {"quant": {"type": "nf4", "double": False}}),  # fused projections
]


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # peft on Mixtral with all-linear
@pytest.mark.parametrize(("family", "keys"), SCENARIOS, ids=lambda value: str(value)[:60])
def test_bytes_of_the_base_model_at_every_stage(family: str, keys: dict[str, object], checkpoints: Path) -> None:
    wanted = scenario(family, stack={"base": "script", "upcast": "all", "autocast": "bfloat16"}, **keys)
    model = load(checkpoints / family, wanted)
    assert predicted(wanted, "loaded") == held(model)
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    assert predicted(wanted, "prepared") == held(model)
    trained = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM",
                                               fan_in_fan_out=False))  # fmt: skip
    adapters = sum(p.nbytes for p in trained.parameters() if p.requires_grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one_step(trained)
    assert predicted(wanted, "steady") + adapters == held(trained)


def test_without_quantisation_nothing_is_packed_and_linears_are_weights(checkpoints: Path) -> None:
    wanted = scenario("qwen2", method="lora")
    assert predicted(wanted, "steady") == held(load(checkpoints / "qwen2", wanted))
    kinds = {component(weight, wanted.quant): set() for weight, _ in wanted.architecture.counted}
    for weight, _ in wanted.architecture.counted:
        kinds[component(weight, wanted.quant)].add(weight.kind)
    assert kinds[Component.WEIGHTS] == {WeightKind.LINEAR}
    assert kinds[Component.UNQUANTIZED] == {WeightKind.EMBEDDING, WeightKind.NORM, WeightKind.BIAS}


@pytest.mark.parametrize(("upcast", "expected"), [("all", 4), ("norms", 2), ("none", 2)])
def test_the_vocabulary_is_cast_back_under_norms(upcast: str, expected: int) -> None:
    wanted = scenario("llama", stack={"base": "hf-trainer", "upcast": upcast})
    elements = {w.kind: prepared_element(w, wanted) for w, _ in wanted.architecture.counted}
    assert elements[WeightKind.EMBEDDING] == elements[WeightKind.HEAD] == expected
    assert elements[WeightKind.NORM] == (2 if upcast == "none" else 4)


def test_norms_and_vocabulary_are_cast_back_under_rest() -> None:
    wanted = scenario("mixtral", stack={"base": "hf-trainer", "upcast": "rest"})
    elements = {w.kind: prepared_element(w, wanted) for w, _ in wanted.architecture.counted}
    assert elements[WeightKind.EMBEDDING] == elements[WeightKind.HEAD] == elements[WeightKind.NORM] == 2
    assert elements[WeightKind.EXPERTS] == elements[WeightKind.ROUTER] == 4


def test_inference_prepares_nothing() -> None:
    wanted = scenario("llama", method="inference")
    assert {prepared_element(w, wanted) for w, _ in wanted.architecture.counted} == {2}
