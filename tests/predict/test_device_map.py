"""Against transformers itself: its own device map of the real model on the meta device, for many budgets."""

import inspect
import math
from functools import cache
from typing import Any

import pytest
import torch
from accelerate import Accelerator, big_modeling
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations import accelerate as placing
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.quantizers.auto import AutoHfQuantizer

import vramplan
from vramplan.catalog.models import catalog_config
from vramplan.predict.device_map import DeviceMap, Place, auto_device_map
from vramplan.predict.placement import ELSEWHERE, NOT_MOVED, REFUSED, placement, placement_warning
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

#: One of each family, tied and untied, with and without biases, experts and Conv1D.
MODELS = [
    "llama-2-7b",
    "llama-3.2-1b",
    "mistral-7b-v0.1",
    "qwen2.5-0.5b",
    "qwen3-0.6b",
    "granite-3.3-8b",
    "olmo-2-7b",
    "gemma-2b",
    "gemma-2-2b",
    "gemma-3-1b",
    "phi-2",
    "phi-3-mini-4k",
    "gpt2",
    "pythia-1.4b",
    "starcoder2-7b",
    "falcon-7b",
    "opt-1.3b",
    "mixtral-8x7b-v0.1",
    "qwen3-30b-a3b",
    "deepseek-v2-lite",
    "gpt-oss-20b",
]
DERIVED: dict[str, dict[str, Any]] = {
    # Read off transformers' own model: a norm behind the embedding and fused projections; one norm per layer.
    "bloom": {"model_type": "bloom", "hidden_size": 64, "n_layer": 4, "n_head": 4, "vocab_size": 512},
    "gptj": {
        "model_type": "gptj", "n_embd": 64, "n_layer": 4, "n_head": 4, "vocab_size": 512, "rotary_dim": 8,
        "bos_token_id": 1, "eos_token_id": 2,
    },
}  # fmt: skip
CASES = [
    *((model, "nf4") for model in DERIVED),
    *((model, "nf4") for model in MODELS),
    *((model, quant) for model in ("llama-3.2-1b", "qwen2.5-0.5b", "gpt2", "opt-1.3b") for quant in ("int8", "none")),
]
#: What is free on the card and what the host takes (None: everything), as shares of the model's own bytes.
BUDGETS = (
    *((share, None) for share in (0.02, 0.5, 0.8, 1.0, 1.15, 1.3, 2.0)),
    *((share, 0.3) for share in (0.2, 0.6, 1.1, 1.45)),
)


def scenario(model: str, quant: str, **keys: Any) -> Scenario:
    method = "lora" if quant == "none" else "qlora"
    given = {"method": method, "quant": {"type": quant}, **keys}
    if model in DERIVED:
        return scenario_from_mapping({"model": DERIVED[model], **given})
    return Scenario.load(model, **given)


@cache
def real(model: str, quant: str) -> tuple[Any, Any]:
    """The real model without data, its linear layers replaced by bitsandbytes', and the quantiser that did it."""
    config = dict(DERIVED[model]) if model in DERIVED else catalog_config(model)
    config.pop("quantization_config", None)
    made = CONFIG_MAPPING[config["model_type"]].from_dict(config)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as from_pretrained's init context does
    try:
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)
        if quant == "none":
            return built, None
        four = quant == "nf4"
        quantizer = AutoHfQuantizer.from_config(
            BitsAndBytesConfig(load_in_4bit=four, load_in_8bit=not four), pre_quantized=False
        )
        quantizer.preprocess_model(model=built, device_map="auto")
    finally:
        torch.set_default_dtype(previous)
    return built, quantizer


def real_places(model: str, quant: str) -> dict[str, str]:
    """Where transformers puts each parameter on the machine that accelerate is told of."""
    built, quantizer = real(model, quant)
    memory = placing.get_balanced_memory(built, None, built._no_split_modules, quantizer)
    if quantizer is not None:
        memory = quantizer.adjust_max_memory(memory)
    found = placing.infer_auto_device_map(
        built, memory, no_split_module_classes=built._no_split_modules, hf_quantizer=quantizer
    )
    names = {0: "gpu", "cpu": "cpu", "disk": "disk"}
    places = placing.expand_device_map(found, [name for name, _ in built.named_parameters()])
    return {name: names[place] for name, place in places.items()}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what the driver and the system would tell accelerate: free memory of GPU 0 and of the host."""

    def set_to(free: float, host: float) -> None:
        def tell(max_memory: Any = None) -> dict[Any, float]:
            return {0: free, "cpu": host} if max_memory is None else dict(max_memory)

        monkeypatch.setattr(placing, "accelerate_max_memory", tell)

    return set_to


def place_of(ours: DeviceMap, path: str) -> Place:
    """Where a parameter or buffer is: its own place, or that of the closest module above it that was placed."""
    while path not in ours.places:
        path = path.rpartition(".")[0]
    return ours.places[path]


@pytest.mark.parametrize(("model", "quant"), CASES)
def test_places_are_those_of_transformers(model: str, quant: str, machine: Any) -> None:
    wanted = scenario(model, quant)
    built, quantizer = real(model, quant)
    size = placing.compute_module_sizes(built, quantizer)[0][""]
    seen = set()
    for share, part in BUDGETS:
        free, host = int(share * size), None if part is None else int(part * size)
        machine(free, math.inf if host is None else host)
        ours = auto_device_map(wanted, free=free, host=host)
        theirs = real_places(model, quant)
        assert {name: place_of(ours, name).value for name in theirs} == theirs, (share, part)
        assert sum(ours.bytes.values()) == size
        assert ours.whole == (set(theirs.values()) == {"gpu"})
        seen |= set(theirs.values())
    assert seen == {"gpu", "cpu", "disk"}


@pytest.mark.parametrize(("share", "places"), [(0.5, {"cpu"}), (1.1, {"gpu", "cpu"}), (2.0, {"gpu"})])
def test_what_is_split_is_refused_in_the_words_that_are_quoted(share: float, places: set[str], machine: Any) -> None:
    built, quantizer = real("qwen2.5-0.5b", "nf4")
    free = int(share * placing.compute_module_sizes(built, quantizer)[0][""])
    machine(free, math.inf)
    found = auto_device_map(scenario("qwen2.5-0.5b", "nf4"), free=free)
    assert set(found.places.values()) == places
    if len(places) == 1:
        whole = 0 if found.whole else "cpu"
        assert placing._get_device_map(built, "auto", None, quantizer) == {"": whole}
    else:
        with pytest.raises(ValueError, match=REFUSED):
            placing._get_device_map(built, "auto", None, quantizer)


def test_consequences_quote_the_installed_libraries() -> None:
    assert ELSEWHERE in " ".join(inspect.getsource(Accelerator.prepare_model).replace('"', "").split())
    assert NOT_MOVED in inspect.getsource(big_modeling.dispatch_model)


def test_a_card_too_small_leaves_everything_on_the_host() -> None:
    found = auto_device_map(scenario("qwen2.5-0.5b", "nf4"), free=2**20)
    assert found.bytes[Place.CPU] == sum(found.bytes.values()) > 0
    assert found.at(Place.GPU) == ()


def test_four_fifths_of_the_free_memory_count() -> None:
    assert auto_device_map(scenario("gpt2", "nf4"), free=1000).limit == 810  # 1000 x 0.9 x 0.9
    assert auto_device_map(scenario("gpt2", "none"), free=1000).limit == 900


def test_a_model_that_fits_but_is_not_left_whole_is_warned_of() -> None:
    # 3.02 GiB packed, 0.49 GiB embedding and head; of 3.9 GiB that are free 3.16 GiB are used
    wanted = scenario("llama-2-7b", "nf4", gpu="t4")
    warning = placement_warning(wanted, budget=4 * 2**30)
    assert "layers" in warning
    assert REFUSED in warning
    assert 'device_map={"": 0}' in warning
    assert 'device_map={"": 0}' not in placement_warning(wanted, budget=2 * 2**30)
    assert placement_warning(wanted) == ""


def test_what_follows_depends_on_how_the_model_is_stored_and_used() -> None:
    small = 2**30
    assert NOT_MOVED in placement_warning(scenario("llama-2-7b", "none", gpu="t4"), budget=small)
    inference = Scenario.load("llama-2-7b", method="inference", quant={"type": "none"}, gpu="t4")
    assert "copies" in placement_warning(inference, budget=8 * small)
    assert ELSEWHERE in placement_warning(scenario("qwen2.5-0.5b", "nf4", gpu="t4"), budget=small // 3)


def test_without_a_card_or_a_checkpoint_nothing_is_placed() -> None:
    assert placement(scenario("gpt2", "nf4")) is None
    assert placement_warning(scenario("gpt2", "nf4")) == ""
    assert placement_warning(scenario("llama-2-7b", "nf4", load="random"), budget=2**30) == ""


def test_predictions_carry_the_warning() -> None:
    wanted = scenario("llama-2-7b", "nf4", gpu="t4")
    assert REFUSED in vramplan.predict(wanted, budget=4 * 2**30).warnings[-1]
    assert not any(REFUSED in warning for warning in vramplan.predict(wanted).warnings)
    assert not any(REFUSED in warning for warning in vramplan.predict(wanted, device="cpu").warnings)
