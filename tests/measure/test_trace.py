"""The trace against real steps under the tracker, deep traces against stretched ones, and the rules for CUDA."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from vramplan.catalog.gpus import gpu
from vramplan.errors import CannotRun, UsageError
from vramplan.ledger import Component, Phase
from vramplan.measure.cpu import CpuMeter
from vramplan.measure.depth import Depths, find_depths
from vramplan.measure.trace import run_steps, run_trace, trace
from vramplan.predict.engine import predict_analytic
from vramplan.scenario import Scenario
from vramplan.scenario_file import read_scenarios, scenario_from_mapping
from vramplan.timeline import Alloc, Timeline
from vramplan.training.run import set_up

TINY = Path(__file__).parent.parent.parent / "scenarios" / "tiny"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "tie_word_embeddings": False,
}
GEMMA = {
    "model_type": "gemma2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 500,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 6,
    "num_hidden_layers": 12,
}


def scenario(**keys: Any) -> Scenario:
    return scenario_from_mapping({"model": LLAMA, "load": "random", "lora": {"rank": 8}, "batch": 2, "seq": 64, **keys})


FAMILIES = (
    "gemma2-softcap",
    "gpt2-conv1d",
    "llama-chunked",
    "llama-compute-float32",
    "llama-full",
    "mixtral-experts",
    "opt-float16",
    "phi3-fused",
    "qwen3-int8",
)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", FAMILIES)
def test_on_the_cpu_the_trace_is_the_real_run(name: str) -> None:
    # No rule stands between the two: the same code, once with memory and once without. Half a percent of leeway is for
    # tables that the libraries keep for the whole process, at most 1,088 B here.
    for case in read_scenarios(TINY / f"{name}.yaml"):
        meter = CpuMeter(vocab=case.architecture.vocab)
        with meter:
            step = set_up(case, torch.device("cpu"), meter)
            step.run()
            step.run()
        real = meter.timeline().ledger({})
        traced = trace(case, device="cpu").ledger
        assert traced.phases == real.phases
        for phase in real.phases:
            assert traced.allocated(phase) == pytest.approx(real.allocated(phase), rel=0.005)
            for component in (Component.WEIGHTS, Component.ADAPTERS, Component.GRADIENTS, Component.OPTIMIZER):
                assert traced.bytes(phase, component) == real.bytes(phase, component)


@pytest.mark.parametrize(
    "keys",
    [
        {"stack": "script"},
        {"stack": "hf-trainer", "checkpointing": "reentrant", "optimizer": "adamw_8bit"},
        {"stack": "hf-trainer", "checkpointing": False, "attention": "eager", "grad_accum": 2},
        {"model": {**LLAMA, **GEMMA, "num_hidden_layers": 12}, "stack": "script"},
    ],
    ids=["script", "reentrant", "eager", "alternating"],
)
def test_a_stretched_trace_is_the_full_one(keys: dict[str, Any]) -> None:
    case = scenario(**{"model": {**LLAMA, "num_hidden_layers": 8}, **keys})
    assert find_depths(case.architecture.layers) is not None
    stretched = run_trace(case, "cuda")
    full = run_steps(case, gpu("a100-80gb"))
    assert stretched.parameters == full.parameters
    assert stretched.timeline.ledger({}) == full.tracker.timeline().ledger({})
    assert _sequence(stretched.timeline) == _sequence(full.tracker.timeline())


def _sequence(timeline: Timeline) -> list[tuple[int, Component]]:
    return [(event.bytes, event.component) for event in timeline.events() if isinstance(event, Alloc)]


def test_depths_keep_a_whole_period_and_the_ends() -> None:
    assert find_depths([0] * 32) == Depths(head=2, period=1, tail=1, times=29)
    # sliding and full attention alternate; 3 + 2 x 10 + 1 = 24 layers
    assert find_depths([0, 1] * 12) == Depths(head=3, period=2, tail=1, times=10)
    # one dense layer first, then experts: the period is found behind it
    assert find_depths([0] + [1] * 26) == Depths(head=2, period=1, tail=1, times=24)
    assert find_depths([0, 1, 2, 3]) is None


def _labels(case: Scenario, card: str) -> dict[str, int]:
    """Label (its first words) -> bytes of every block of a run on the card."""
    tracker = run_steps(case, gpu(card)).tracker
    return {event.label: event.bytes for event in tracker.timeline().events() if isinstance(event, Alloc)}


def test_what_cuda_does_differently_is_there_by_name() -> None:
    labels = _labels(scenario(stack="script", attention="eager"), "t4")
    # grad * output of [2, 4, 64, 64] in fp32
    softmax = [size for label, size in labels.items() if label.startswith("softmax gradient times output")]
    assert set(softmax) == {2 * 4 * 64 * 64 * 4}
    # 2 x 4096 KiB + 8 x 16 KiB, one per thread
    for thread in ("main", "backward"):
        assert labels[f"cuBLAS workspace of the {thread} thread"] == 8_519_680


def test_dropout_keeps_a_mask_of_one_byte() -> None:
    case = scenario(stack="script", checkpointing=False, lora={"rank": 8, "dropout": 0.1})
    masks = {label: size for label, size in _labels(case, "t4").items() if " bool " in label and "dropout" in label}
    # the inputs of the seven adapters: [2, 64, 128], and [2, 64, 256] of the down projection
    assert set(masks.values()) == {2 * 64 * 128, 2 * 64 * 256}


def test_flash_attention_allocates_its_accumulators_in_backward() -> None:
    labels = _labels(scenario(stack="hf-trainer"), "a100-80gb")
    accumulators = {size for label, size in labels.items() if label.startswith("flash query gradient accumulator")}
    assert accumulators == {2 * 4 * 128 * 32 * 4}  # batch, heads, rows padded to 128, head of 32, fp32
    assert run_steps(scenario(stack="hf-trainer"), gpu("a100-80gb")).attention[0].kernel == "flash"


def test_large_paged_states_are_not_on_the_device() -> None:
    model = {**LLAMA, "hidden_size": 1024, "num_hidden_layers": 1}
    # rank 128 on 1024: 131,072 elements are paged; rank 16: 16,384 are not
    paged = trace(scenario(model=model, optimizer="paged_adamw_32bit", lora={"rank": 128, "targets": ["q_proj"]}))
    small = trace(scenario(model=model, optimizer="paged_adamw_32bit", lora={"rank": 16, "targets": ["q_proj"]}))
    assert paged.ledger.bytes(Phase.STEP, Component.OPTIMIZER) == 0
    # two states in fp32 of A [16, 1024] and B [1024, 16]
    assert small.ledger.bytes(Phase.STEP, Component.OPTIMIZER) == 2 * 2 * 16 * 1024 * 4


def test_math_attention_is_warned_about() -> None:
    (warning,) = trace(scenario(stack="script", gpu="a100-80gb")).warnings  # fp32 and grouped queries
    assert "math kernel" in warning
    assert "float32" in warning


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "merge", "quant": {"type": "nf4"}},
        {"optimizer": "paged_adamw_8bit"},
        {"stack": {"upcast": "norms", "autocast": False}},  # ends at its first step
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_the_trace_warns_of_what_the_closed_form_warns_of(keys: dict[str, Any]) -> None:
    (tiny,) = read_scenarios(TINY / "llama-nf4.yaml", keys)
    assert trace(tiny, device="cuda").warnings == predict_analytic(tiny).warnings != ()


def test_embeddings_can_be_adapted() -> None:
    (tiny,) = read_scenarios(TINY / "llama-nf4.yaml", {"lora.targets": ["embed_tokens", "q_proj"]})
    assert trace(tiny, device="cuda").parameters == predict_analytic(tiny).parameters


def test_a_prediction_on_a_card_has_a_verdict_and_reserves_segments() -> None:
    prediction = trace(scenario(gpu="t4"))
    assert prediction.verdict is not None
    assert prediction.verdict.fits
    for phase in prediction.ledger.phases:
        assert prediction.reserved[phase] >= prediction.ledger.bytes(phase, Component.WEIGHTS)


def test_the_libraries_are_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    # bitsandbytes logs every 8-bit product whose input it casts, transformers a bar while it loads
    trace(scenario(quant={"type": "int8"}, load="checkpoint", gpu="t4", compute_dtype="float16"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("quant", [{"type": "nf4"}, {"type": "nf4", "double": False}, {"type": "int8"}], ids=str)
def test_bits_are_those_of_weights_and_constants_without_tables(quant: dict[str, object]) -> None:
    wanted = scenario(quant=quant, gpu="t4", compute_dtype="float16")
    assert trace(wanted).bits_per_parameter == predict_analytic(wanted).bits_per_parameter


def test_what_stops_the_libraries_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    odd = scenario_from_mapping({"model": LLAMA | {"head_dim": 13}, "load": "random", "seq": 16})
    with pytest.raises(CannotRun, match=r"cannot run this step of 'llama' on fake tensors: .* length 14"):
        trace(odd)
    assert capfd.readouterr().err == ""


def test_what_the_caller_set_in_torch_changes_nothing() -> None:
    expected = trace(scenario()).ledger
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode(), torch.device("meta"):
        assert trace(scenario()).ledger == expected


def test_traces_in_threads_wait_for_each_other() -> None:
    cases = [scenario(batch=batch) for batch in (1, 2)]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(trace, cases))
    assert together == [trace(case) for case in cases]
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("method", ["lora", "merge"])
def test_a_name_that_no_module_has_is_refused_and_not_passed_over(method: str) -> None:
    lora = {"modules_to_save": ["word_embeddings"]}
    wrong = scenario_from_mapping({"model": LLAMA, "method": method, "lora": lora, "gpu": "a100-80gb"})
    with pytest.raises(UsageError, match=r"'word_embeddings' of .*: no such module"):
        run_trace(wrong, "cuda")
