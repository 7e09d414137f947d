"""Merging by the real libraries: what the merged model computes, and what is written and read again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import GPT2, LLAMA, MIXTRAL, tiny
from torch import Tensor
from transformers import AutoModelForCausalLM

from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.training.adapter_files import load_adapters, write_adapters
from vramplan.training.build import build_model, transformers_config
from vramplan.training.inference import keep_packing
from vramplan.training.merge import Merging, dequantize, merge, save
from vramplan.training.meter import NoMeter

CPU = torch.device("cpu")
IDS = torch.arange(48).reshape(2, 24) * 5 % 256


def scenario(**keys: Any) -> Scenario:
    return tiny(**{"method": "merge", "lora": {"rank": 8}, **keys})


def loaded(wanted: Scenario, folder: Path) -> Any:
    """Base and adapters, ready to be merged."""
    base: Any = build_model(wanted, CPU, NoMeter())
    write_adapters(wanted, folder)
    model = load_adapters(dequantize(base) if wanted.merge.dequantize else base, wanted, folder).eval()
    keep_packing(model)
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=IDS, use_cache=False).logits.float()
    return found


def difference(one: Tensor, other: Tensor) -> float:
    """Root mean square of the difference, as a share of the first one's."""
    return float((one - other).pow(2).mean().sqrt() / one.pow(2).mean().sqrt())


@pytest.mark.parametrize("model", [LLAMA, GPT2, MIXTRAL], ids=["llama", "gpt2", "mixtral"])
def test_in_fp32_a_merged_model_computes_what_base_and_adapter_do(model: dict[str, Any], tmp_path: Path) -> None:
    both = loaded(scenario(model=model, dtype="float32", compute_dtype="float32"), tmp_path)
    before = logits(both)
    with both.disable_adapter():
        base = logits(both)
    after = logits(merge(both, safe=False))
    assert difference(before, after) < 1e-5
    assert difference(before, base) > 0.01  # the adapter does something


@pytest.mark.parametrize("safe", [False, True])
def test_in_16_bits_the_difference_is_rounding(safe: bool, tmp_path: Path) -> None:
    both = loaded(scenario(), tmp_path)
    # bfloat16 keeps 8 bits: each weight is rounded by up to 2^-9, each activation too
    assert difference(logits(both), logits(merge(both, safe=safe))) < 2**-5


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_dequantised_base_merges_to_rounding_too(kind: str, tmp_path: Path) -> None:
    both = loaded(scenario(quant={"type": kind}, merge={"dequantize": True}), tmp_path)
    assert not any(hasattr(module, "source_cls") for module in both.modules())
    assert difference(logits(both), logits(merge(both, safe=False))) < 2**-5


def test_merging_into_4_bits_rounds_the_sum_again(tmp_path: Path) -> None:
    # rows of whole blocks: of others bitsandbytes 0.50.2 mixes the constants up when it dequantises on a CPU
    both = loaded(scenario(model={**LLAMA, "intermediate_size": 192}, quant={"type": "nf4"}), tmp_path)
    before = logits(both)
    projection = both.get_base_model().model.layers[0].mlp.down_proj
    wanted = dequantized(projection.base_layer.weight) + projection.get_delta_weight("default")
    merged = merge(both, safe=False)
    weight = merged.model.layers[0].mlp.down_proj.weight
    assert weight.quant_state.dtype is torch.float32  # dequantising it takes 4 bytes per element from now on
    # normal weights in nf4 are off by about a tenth of their deviation (QLoRA paper, section 3), here once more
    assert 0.05 < difference(wanted, dequantized(weight)) < 0.15
    assert difference(before, logits(merged)) < 0.3


def dequantized(weight: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    plain: Tensor = dequantize_4bit(weight.data, weight.quant_state).float()
    return plain


@pytest.fixture
def merging() -> Merging:
    return Merging(scenario(merge={"max_shard_size": "50KB"}), CPU, NoMeter())


def test_the_saved_files_are_the_merged_model(merging: Merging, tmp_path: Path) -> None:
    merging.run()
    assert len(merging.files) > 1  # 245,504 bytes of weights, in files of at most 50,000
    save(merging.model, tmp_path, scenario(merge={"max_shard_size": "50KB"}))
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(logits(merging.model.eval()), logits(again.eval()))


def test_a_second_run_loads_and_merges_again(merging: Merging) -> None:
    merging.run()
    first = logits(merging.model.eval())
    merging.run()
    assert torch.equal(first, logits(merging.model.eval()))


def test_the_base_comes_from_a_checkpoint_where_there_is_one(tmp_path: Path) -> None:
    config = transformers_config(scenario())
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "adapters").mkdir()
    wanted = scenario_from_mapping({"model": str(tmp_path / "base"), "method": "merge", "lora": {"rank": 8}})
    both = loaded(wanted, tmp_path / "adapters")
    with both.disable_adapter():
        assert torch.equal(logits(both), logits(model.eval()))
