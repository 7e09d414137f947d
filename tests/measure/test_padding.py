"""Padded batches: the trace against real steps on the CPU, and the closed form against the trace on a card."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training_phases import TRAINING_PHASES

import vramplan
from vramplan.ledger import Component
from vramplan.measure.cpu import CpuMeter
from vramplan.measure.trace import run_trace, trace
from vramplan.predict.forecast import forecast
from vramplan.predict.step import step_warnings
from vramplan.record import Prediction
from vramplan.scenario import Scenario
from vramplan.scenario_file import read_scenarios, scenario_from_mapping
from vramplan.timeline import Alloc, Timeline
from vramplan.training.run import set_up

TINY = Path(__file__).parents[2] / "scenarios" / "tiny"
SHAPE = {"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 256, "vocab_size": 500}
GROUPED = {**SHAPE, "intermediate_size": 512, "num_key_value_heads": 2, "head_dim": 32}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **GROUPED},
    "qwen2": {"model_type": "qwen2", **GROUPED},
    "gemma2": {"model_type": "gemma2", **GROUPED, "sliding_window": 64},
    "gpt2": {
        "model_type": "gpt2", "n_embd": 256, "n_layer": 2, "n_head": 8, "vocab_size": 500, "n_positions": 1024,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "stablelm": {"model_type": "stablelm", **GROUPED},
    "olmo3": {"model_type": "olmo3", **GROUPED, "sliding_window": 64},
    "phi3": {"model_type": "phi3", **GROUPED, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}  # fmt: skip


def padded(model: str, **keys: Any) -> Scenario:
    """A padded batch of a small model, whose mask weighs as much as the rest."""
    return scenario_from_mapping(
        {"model": MODELS[model], "load": "random", "batch": 2, "seq": 320, "padding": True, "lora": {"rank": 8}, **keys}
    )


@pytest.mark.parametrize("name", ["llama-padded", "gemma2-padded"])
def test_on_the_cpu_the_trace_is_the_real_run(name: str) -> None:
    case = read_scenarios(TINY / f"{name}.yaml")[0]
    meter = CpuMeter(vocab=case.architecture.vocab)
    with meter:
        step = set_up(case, torch.device("cpu"), meter)
        step.run()
        step.run()
    real, traced = meter.timeline().ledger({}), trace(case, device="cpu").ledger
    for phase in TRAINING_PHASES:
        assert traced.allocated(phase) == pytest.approx(real.allocated(phase), rel=0.005)


def tensors(prediction: Prediction) -> list[int]:
    """Each phase's peak without what the allocator rounds up, which depends on how blocks of loading were split."""
    ledger = prediction.ledger
    return [ledger.allocated(phase) - ledger.bytes(phase, Component.ALLOCATOR) for phase in TRAINING_PHASES]


@pytest.mark.parametrize(
    ("model", "keys", "kernels"),
    [
        ("llama", {}, ("efficient",)),
        ("llama", {"checkpointing": False, "seq": 323}, ("efficient",)),  # the mask's rows are copied into longer ones
        ("llama", {"checkpointing": False, "stack": "script"}, ("efficient",)),  # fp32, and grouped heads: not math
        ("llama", {"attention": "eager", "batch": 1}, ()),
        ("llama", {"attention": "flash_attention_2", "checkpointing": False}, ()),
        ("llama", {"attention": "sdpa:math", "checkpointing": False}, ("math",)),
        ("llama", {"gpu": "t4", "compute_dtype": "float16", "checkpointing": False}, ("efficient",)),
        ("qwen2", {"checkpointing": "reentrant"}, ("efficient",)),
        ("qwen2", {"attention": "eager", "checkpointing": False}, ()),
        ("qwen2", {"attention": "flash_attention_2"}, ()),
        ("gemma2", {"checkpointing": False}, ("efficient",)),  # two masks, of layers with and without a window
        ("gemma2", {"attention": "eager"}, ()),
        ("gpt2", {"checkpointing": False}, ("efficient",)),
        ("gpt2", {"attention": "eager"}, ()),
        ("phi3", {"attention": "flash_attention_2", "checkpointing": False}, ()),  # heads first: laid out anew
        # families outside the table, whose own code makes the masks
        ("stablelm", {}, ("efficient",)),
        ("stablelm", {"attention": "eager", "stack": "script"}, ()),
        ("olmo3", {"checkpointing": False}, ("efficient",)),
        ("olmo3", {"stack": "trl"}, ("efficient",)),
        ("llama", {"eval": {"batch": 4}}, ("efficient",)),  # so are the evaluation's batches
    ],
    ids=str,
)
def test_the_closed_form_is_the_trace(model: str, keys: dict[str, Any], kernels: tuple[str, ...]) -> None:
    scenario = padded(model, **keys)
    closed, traced = vramplan.predict(scenario), vramplan.predict(scenario, "trace")
    assert closed.attention == kernels
    assert tensors(closed) == pytest.approx(tensors(traced), rel=0.005)


def test_what_flash_attention_gathers_outside_the_table_is_said_to_be_open() -> None:
    (warning,) = step_warnings(padded("stablelm", attention="flash_attention_2"), "cuda")
    assert "gathers from padded samples" in warning


@pytest.mark.parametrize(("seq", "width"), [(320, 320), (323, 328)])
def test_a_mask_is_kept_per_layer_in_rows_of_a_multiple_of_eight(seq: int, width: int) -> None:
    scenario = padded("llama", seq=seq, checkpointing=False)
    size = 2 * seq * width * 2  # two samples, rows x columns, bfloat16; one for all heads
    for timeline in (forecast(scenario, "cuda").timeline, run_trace(scenario, "cuda").timeline):
        kept = [event for event in _alive_at_backward(timeline) if event.bytes == size]
        assert len(kept) == 2  # layers


def _alive_at_backward(timeline: Timeline) -> list[Alloc]:
    """Blocks that are held when the last backward begins."""
    alive: dict[int, Alloc] = {}
    found: list[Alloc] = []
    for event in timeline.events():
        if isinstance(event, Alloc):
            alive[event.block] = event
        elif hasattr(event, "block"):
            alive.pop(event.block, None)
        elif getattr(event, "phase", None) == "backward":
            found = list(alive.values())
    return found


def test_padding_is_what_takes_attention_off_flash() -> None:
    from msgspec.structs import replace

    scenario = padded("llama")
    assert vramplan.predict(scenario).attention == ("efficient",)
    assert vramplan.predict(replace(scenario, padding=False)).attention == ("flash",)
