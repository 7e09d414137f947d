"""The assembled prediction: what it consists of, that its parts add up, and real steps on the CPU beside it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from real_models import config, held, load, one_step, save_checkpoint, scenario
from training_phases import TRAINING_PHASES
from transformers import AutoModelForCausalLM, DynamicCache

from vramplan.allocator import replay
from vramplan.catalog.gpus import gpu
from vramplan.ledger import Basis, Component, Phase
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import forecast, ledger
from vramplan.predict.resident import resident
from vramplan.record import result_from_json
from vramplan.scenario import Scenario
from vramplan.units import human

FIELDS = {"load": "load_from"}
GUANACO = {"batch": 1, "seq": 512, "lora": {"rank": 64}}


@pytest.mark.parametrize(("family", "quant"), [("llama", "nf4"), ("qwen2", "fp4"), ("gpt2", "nf4")])
def test_resident_bytes_are_those_of_a_real_model_after_two_steps(family: str, quant: str, tmp_path: Path) -> None:
    wanted = scenario(family, quant={"type": quant}, lora={"rank": 2}, optimizer="adamw_8bit", load="checkpoint")
    save_checkpoint(family, tmp_path)
    model = prepare_model_for_kbit_training(load(tmp_path, wanted), use_gradient_checkpointing=False)
    trained = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    one_step(trained)
    predicted = ledger(wanted, "cpu")
    resident = (Component.WEIGHTS, Component.QUANT_STATE, Component.UNQUANTIZED, Component.ADAPTERS)
    shared = 1024  # the process' code map, which belongs to no layer
    for phase in TRAINING_PHASES:
        assert sum(predicted.bytes(phase, component) for component in resident) == held(trained) + shared
    gradients = sum(p.grad.nbytes for p in trained.parameters() if p.grad is not None)
    assert predicted.bytes(Phase.STEP, Component.GRADIENTS) == gradients


def test_a_prediction_for_cuda_is_whole() -> None:
    prediction = predict_analytic(Scenario.load("llama-2-7b", gpu="rtx3090", **GUANACO))
    assert prediction.ledger.phases == (Phase.LOAD, *TRAINING_PHASES)
    assert list(prediction.reserved) == [Phase.LOAD, *TRAINING_PHASES]
    reserved = list(prediction.reserved.values())
    assert reserved == sorted(reserved)  # a running high-water mark
    for phase in prediction.ledger.phases:
        assert prediction.ledger.bytes(phase, Component.CONTEXT) == gpu("rtx3090").context
        assert prediction.ledger.allocated(phase) <= prediction.reserved[phase]
    assert prediction.verdict is not None
    assert prediction.verdict.fits
    assert result_from_json(prediction.to_json()).to_json() == prediction.to_json()


def test_exact_components_are_marked_and_the_context_names_its_origin() -> None:
    prediction = predict_analytic(Scenario.load("llama-2-7b", gpu="rtx3090", **GUANACO))
    basis = {entry.component: entry.basis for entry in prediction.ledger.entries}
    assert basis[Component.WEIGHTS] is basis[Component.OPTIMIZER] is Basis.EXACT
    assert basis[Component.ACTIVATIONS] is Basis.MODELLED
    assert basis[Component.CONTEXT] is Basis.CALIBRATED
    notes = {entry.note for entry in prediction.ledger.entries if entry.component is Component.CONTEXT}
    assert notes == {gpu("rtx3090").context_origin}


def test_on_the_cpu_there_is_no_allocator_no_workspace_of_cublas_no_context() -> None:
    prediction = predict_analytic(scenario("llama", gpu="rtx3090"), device="cpu")
    assert prediction.reserved == {}
    assert prediction.verdict is None
    assert prediction.context == 0
    assert not any(entry.component is Component.ALLOCATOR for entry in prediction.ledger.entries)
    labels = {getattr(event, "label", "") for event in forecast(scenario("llama"), "cpu").timeline.events()}
    assert not any("cuBLAS" in label for label in labels)


def test_cublas_workspaces_by_generation() -> None:
    ada, hopper = (ledger(scenario("llama", gpu=name, seq=16)) for name in ("rtx4090", "h100-80gb"))
    # 8.125 MiB and 32 MiB, one for each of two threads
    assert hopper.steady - ada.steady == 2 * (32 * 2**20 - 8_519_680)


def test_the_quick_ledger_is_the_timelines_without_unsplit_remainders() -> None:
    wanted = scenario("llama", batch=2, seq=64)
    quick, played = ledger(wanted), replay(forecast(wanted, "cuda").timeline.parts)
    assert tuple(mark.phase for mark in played.marks) == quick.phases
    for mark in played.marks:
        assert quick.allocated(mark.phase) <= mark.allocated
        assert mark.allocated - quick.allocated(mark.phase) <= sum(m.moment.unsplit for m in played.marks)


def test_counts_of_parameters() -> None:
    parameters = predict_analytic(Scenario.load("llama-2-7b", **GUANACO), device="cpu").parameters
    assert parameters.total == 6_738_415_616
    assert parameters.quantized == 6_476_005_376
    # rank 64: per layer 4 x (4096 + 4096) + 3 x (4096 + 11008) = 78,080 times 64
    assert parameters.trainable == 32 * 78_080 * 64


def test_a_mixture_says_how_little_of_it_is_quantised() -> None:
    (warning,) = [w for w in predict_analytic(scenario("mixtral"), device="cpu").warnings if "quantised" in w]
    assert "3-D" in warning


def test_paged_states_say_where_they_are() -> None:
    paged = {"optimizer": "paged_adamw_8bit", "gpu": "rtx3090"}
    large = predict_analytic(Scenario.load("llama-2-7b", **GUANACO, **paged))
    notes = {entry.note for entry in large.ledger.entries if entry.component is Component.OPTIMIZER}
    # rank 64: every matrix has at least 64 x 4096 = 262,144 elements, so all 2 x 159,907,840 bytes of states are paged
    assert notes == {"305.00 MiB more in managed memory (paged states), outside the allocator"}
    small = predict_analytic(scenario("llama", **paged))
    assert any("no optimizer state is paged" in warning for warning in small.warnings)


def test_depth_costs_nothing_and_adds_up() -> None:
    parts = [len(forecast(Scenario.load(name), "cuda").timeline.parts) for name in ("llama-2-7b", "llama-2-13b")]
    assert parts[0] == parts[1]  # 32 and 40 layers


@pytest.mark.parametrize("dtype", [torch.float32])
def test_bits_of_an_unquantised_base_are_its_dtypes(dtype: torch.dtype) -> None:
    assert predict_analytic(scenario("llama", method="lora"), device="cpu").bits_per_parameter == 16.0
    full = scenario("llama", method="full", dtype="float32", compute_dtype="float32")
    assert predict_analytic(full, device="cpu").bits_per_parameter == 8.0 * dtype.itemsize


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "phi3", "mixtral"])
def test_the_cache_is_what_transformers_keeps(family: str) -> None:
    model = AutoModelForCausalLM.from_config(config(family), dtype=torch.bfloat16).eval()
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.ones(2, 16, dtype=torch.int64), past_key_values=cache, use_cache=True)
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    predicted = ledger(scenario(family, method="inference", batch=2, seq=16, new_tokens=5), "cpu")
    assert predicted.phases == (Phase.LOAD, Phase.PREFILL, Phase.DECODE)
    assert predicted.bytes(Phase.PREFILL, Component.CACHE) == real


def test_what_is_kept_between_predictions_follows_every_key_that_decides_it() -> None:
    """The resident part is remembered; a scenario that differs must not get another's."""
    base = scenario("qwen2", batch=1)
    changed = {
        "quant": {"type": "nf4", "double": False},
        "lora": {"rank": 4},
        "optimizer": "adamw_8bit",
        "load": "random",
        "gpu": "h100-80gb",
        "compute_dtype": "float32",
        "stack": {"base": "hf-trainer", "upcast": "none"},
    }
    seen = {resident(base, "cuda").parts, resident(base, "cpu").parts}
    for key, value in changed.items():
        other = replace(
            base, **{FIELDS.get(key, key): getattr(scenario("qwen2", **{key: value}), FIELDS.get(key, key))}
        )
        assert other.model is base.model
        seen.add(resident(other, "cuda").parts)
    assert len(seen) == 2 + len(changed)
    assert resident(replace(base, batch=7), "cuda") is resident(base, "cuda")


@pytest.mark.parametrize(
    ("model", "keys", "words"),
    [
        # before compute capability 8.0 the efficient kernel takes float16 alone, and never grouped heads
        ("llama-2-7b", {"gpu": "t4", "batch": 4}, "float16 (compute_dtype: float16) takes"),
        ("llama-3.1-8b", {"gpu": "t4", "seq": 8192}, "the matrix takes"),
        ("llama-3.1-8b", {"gpu": "rtx4090", "stack": "script", "seq": 8192}, "(stack.autocast: bfloat16) takes"),
        ("llama-3.1-8b", {"gpu": "rtx4090", "stack": "script"}, "here it does not decide the peak"),
    ],
)
def test_the_way_out_of_the_math_kernel_is_one_that_runs(model: str, keys: dict[str, Any], words: str) -> None:
    (warning,) = [w for w in predict_analytic(Scenario.load(model, **keys)).warnings if "math kernel" in w]
    assert words in warning


def test_the_advised_float16_saves_what_was_said() -> None:
    keys = {"gpu": "t4", "batch": 4}
    (warning,) = predict_analytic(Scenario.load("llama-2-7b", **keys)).warnings
    half = Scenario.load("llama-2-7b", **keys, compute_dtype="float16")
    saved = ledger(Scenario.load("llama-2-7b", **keys)).peak - ledger(half).peak
    assert f"takes {human(saved)} less at the peak" in warning
