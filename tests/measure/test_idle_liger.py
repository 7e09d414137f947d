"""The closed form of Liger's kernels against Liger's own code on fake tensors, event by event."""

from typing import Any

import pytest

from tests.predict.real_models import LLAMA, MIXTRAL, PHI3, QWEN3_MOE
from tests.predict.test_derived_families import tiny
from tests.predict.test_event_order import GEMMA2, OLMO2, SCRIPT, moves
from vramplan.catalog.gpus import gpu
from vramplan.errors import CannotRun, UsageError
from vramplan.ledger import Phase
from vramplan.measure.trace import run_steps, run_trace
from vramplan.predict.forecast import forecast
from vramplan.predict.stops import stops
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.timeline import Free

pytest.importorskip("triton", reason="Triton is for Linux")

QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 16}
GEMMA3 = {**LLAMA, "model_type": "gemma3_text", "head_dim": 16, "sliding_window": 4096}
GRANITE = {**LLAMA, "model_type": "granite"}
ATTENTION = {"rank": 8, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}
ALL = {"kernels": "liger"}
FUSED = {"kernels": "liger", "loss": "liger"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "under autocast": (LLAMA, {"stack": ALL}),
    "in fp32": (LLAMA, {"stack": {**ALL, "base": "script"}}),
    "in 16 bits, without checkpoints": (LLAMA, {"stack": {**SCRIPT, **ALL}, "checkpointing": False}),
    "the math kernel": (LLAMA, {"stack": {**ALL, "base": "script"}, "attention": "eager", "batch": 3}),
    "reentrant": (LLAMA, {"stack": FUSED, "checkpointing": "reentrant"}),
    "with the loss": (LLAMA, {"stack": FUSED, "grad_accum": 2}),
    "with the loss, in fp32": (LLAMA, {"stack": {**FUSED, "base": "script"}}),
    "the loss alone": (LLAMA, {"stack": {"loss": "liger", "base": "script", "upcast": "none"}}),
    "TRL": (LLAMA, {"stack": {**ALL, "base": "trl"}}),
    "positions alone": (PHI3, {"stack": {"kernels": ["rope"]}}),
    "norms alone": (GEMMA3, {"stack": {"kernels": ["rms_norm"], "upcast": "none"}}),
    "MLPs alone": (LLAMA, {"stack": {"kernels": ["mlp"]}, "checkpointing": False}),
    "one projection for all": (PHI3, {"stack": ALL, "checkpointing": False}),
    "norms of each head": (QWEN3, {"stack": ALL}),
    "norms of each head, by heads": (GEMMA3, {"stack": ALL}),
    "norms behind": ({**GEMMA2, "num_hidden_layers": 2}, {"stack": FUSED, "batch": 3}),
    "norms of whole rows": (OLMO2, {"stack": {**ALL, "base": "trl"}}),
    "all trained": (LLAMA, {"stack": ALL, "method": "full"}),
    "all trained, with the loss": (LLAMA, {"stack": FUSED, "method": "full", "checkpointing": False}),
    "scaled residuals": (GRANITE, {"stack": ALL}),
    "experts": (QWEN3_MOE, {"stack": ALL, "lora": ATTENTION}),
    "experts in fp32": (QWEN3_MOE, {"stack": {**ALL, "base": "script"}, "lora": ATTENTION}),
    "experts, without checkpoints": (MIXTRAL, {"stack": ALL, "lora": ATTENTION, "checkpointing": False}),
}


def scenario(model: dict[str, Any], **keys: Any) -> Scenario:
    mapping = {"model": {**model}, "lora": {"rank": 8}, "load": "random", "batch": 2, "seq": 96, "gpu": "a100-80gb"}
    return scenario_from_mapping({**mapping, **keys})


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("name", CASES)
def test_the_order_is_ligers_own(name: str) -> None:
    model, keys = CASES[name]
    wanted = scenario(model, **keys)
    assert moves(forecast(wanted, "cuda").timeline.events()) == moves(run_trace(wanted, "cuda").timeline.events())


@pytest.mark.filterwarnings("ignore")
def test_what_was_patched_is_the_models_own_again() -> None:
    from transformers.models.llama import modeling_llama

    before = dict(vars(modeling_llama))
    run_trace(scenario(LLAMA, stack=FUSED), "cuda")
    assert vars(modeling_llama) == before


@pytest.mark.filterwarnings("ignore")
def test_a_family_that_liger_knows_and_the_closed_form_does_not_is_traced() -> None:
    plain, liger = (
        run_trace(scenario(tiny("smollm3"), stack={"kernels": kernels}, checkpointing=False), "cuda")
        for kernels in ("torch", "liger")
    )
    kept, less = (trace.timeline.ledger({}).allocated(Phase.FORWARD) for trace in (plain, liger))
    assert less < kept
    with pytest.raises(CannotRun, match="smollm3") as caught:
        forecast(scenario(tiny("smollm3"), stack=ALL), "cuda")
    assert "--engine trace" in caught.value.hint


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "stack", "words"),
    [
        ("gpt_neox", {"loss": "liger"}, "stack.loss: Liger has nothing for gpt_neox"),
        ("gpt_neox", {"kernels": "liger"}, "stack.kernels: Liger has nothing for gpt_neox"),
        ("granite", {"loss": "liger"}, "no fused loss for granite"),
    ],
)
def test_where_liger_would_do_nothing_it_is_refused(family: str, stack: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_trace(scenario({**LLAMA, "model_type": family}, stack=stack), "cuda")


@pytest.mark.filterwarnings("ignore")
def test_what_liger_leaves_off_stays_off() -> None:
    """Of GLM 4's positions it has none, and stops where they are asked for."""
    run_trace(scenario(tiny("glm4"), stack=ALL), "cuda")


@pytest.mark.filterwarnings("ignore")
def test_a_deep_model_whose_last_layer_counts_its_blocks_otherwise() -> None:
    deep = scenario({**LLAMA, "num_hidden_layers": 9}, stack=FUSED, checkpointing=False)
    stretched = run_trace(deep, "cuda").timeline
    assert stretched.ledger({}) == run_steps(deep, gpu("a100-80gb")).tracker.timeline().ledger({})
    events = list(stretched.events())
    assert len({event.block for event in events if isinstance(event, Free)}) == sum(isinstance(e, Free) for e in events)


@pytest.mark.filterwarnings("ignore")
def test_experts_that_peft_has_wrapped_cannot_run() -> None:
    wanted = scenario(QWEN3_MOE, stack=ALL)
    with pytest.raises(CannotRun, match="hidden_dim"):
        run_trace(wanted, "cuda")
    assert any("'hidden_dim'" in words for words in stops(wanted))


def test_on_a_cpu_there_are_none() -> None:
    with pytest.raises(CannotRun, match="Triton"):
        run_trace(scenario(LLAMA, stack=ALL), "cpu")
