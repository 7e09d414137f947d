"""The closed form's step against real steps on the CPU: transformers, peft, bitsandbytes, torch."""

from pathlib import Path
from typing import Any

import pytest
from training_phases import TRAINING_PHASES
from yaml import safe_dump

from tests.predict.real_steps import real_peaks
from vramplan.ledger import Phase
from vramplan.predict.step import SAMPLED, StepRun, step_parts, step_warnings
from vramplan.predict.template import Template
from vramplan.scenario import Scenario
from vramplan.targets import resolve
from vramplan.timeline import Alloc, Enter, Event, Free, Timeline

TINY = Path(__file__).parents[2] / "scenarios" / "tiny"
SCRIPT = {"base": "script", "upcast": "none", "autocast": False}
BARE = {"type": "none"}

#: Each names a file of scenarios/tiny, and what is changed in it.
EVERYWHERE = {"rank": 8, "targets": "all-linear"}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama-nf4", {}),
    "llama reentrant": ("llama-nf4", {"checkpointing": "reentrant"}),
    "llama without checkpoints": ("llama-nf4", {"checkpointing": False}),
    "llama script": ("llama-nf4", {"stack": "script"}),
    "llama script without checkpoints": ("llama-nf4", {"stack": "script", "checkpointing": False}),
    "llama eager": ("llama-nf4", {"attention": "eager"}),
    "llama math": ("llama-nf4", {"attention": "sdpa:math"}),
    "llama accumulating": ("llama-nf4", {"grad_accum": 2}),
    "llama 16-bit base": ("llama-lora", {"checkpointing": False, "stack": SCRIPT, "optimizer": "adamw_torch"}),
    "llama full": ("llama-full", {"optimizer": "adamw_torch"}),
    # the Trainer leaves the states of embeddings in 32 bits: here the update of a large table is the peak
    "llama full with a large table": (
        "llama-full",
        {"optimizer": "adamw_bnb_8bit", "stack": "hf-trainer", "model.vocab_size": 32_000, "batch": 1, "seq": 8},
    ),
    "llama int8": ("llama-nf4", {"quant": {"type": "int8"}, "stack": "script"}),
    "llama few targets": ("llama-nf4", {"lora": {"rank": 8, "targets": ["q_proj", "v_proj"]}}),
    "llama chunked loss": ("llama-chunked", {}),
    "llama tied fp4": ("llama-tied-fp4-single", {}),
    "mistral": ("mistral-norms", {}),
    "gemma 2": ("gemma2-softcap", {}),
    "gemma 3": ("gemma3-text", {}),
    "gpt-2": ("gpt2-conv1d", {}),
    "gpt-neox": ("neox-parallel", {"stack": {"base": "script", "outputs": "held"}}),
    "opt": ("opt-float16", {}),
    "phi-3": ("phi3-fused", {}),
    "qwen 2": ("qwen2-biases", {}),
    "qwen 3 int8": ("qwen3-int8", {}),
    "mixtral": ("mixtral-experts", {}),
    "mixtral adapters of experts": ("mixtral-experts", {"lora": EVERYWHERE}),
    "mixtral adapters of experts without checkpoints": (
        "mixtral-experts",
        {"lora": EVERYWHERE, "checkpointing": False, "stack": "script"},
    ),
}


def scenario(file: str, changes: dict[str, Any]) -> Scenario:
    return resolve(str(TINY / f"{file}.yaml"), changes).single("the test")


def predicted(run: Scenario) -> dict[Phase, int]:
    """High-water marks of the step alone, every round of every repeat written out."""
    held, phase, sizes, peaks = 0, Phase.LOAD, dict[int, int](), dict[Phase, int]()
    for event in Timeline(step_parts(run, "cpu")).events():
        if isinstance(event, Alloc):
            sizes[event.block] = event.bytes
            held += event.bytes
        elif isinstance(event, Free):
            held -= sizes.pop(event.block)
        elif isinstance(event, Enter):
            phase = event.phase
        peaks[phase] = max(peaks.get(phase, 0), held)
    assert held == 0  # a steady step leaves nothing behind
    return peaks


@pytest.mark.parametrize("name", RUNS)
def test_every_phase_is_within_half_a_percent_of_the_real_step(name: str) -> None:
    run = scenario(*RUNS[name])
    real = real_peaks(run)
    assert tuple(real) == TRAINING_PHASES
    assert predicted(run) == pytest.approx(real, rel=0.005)


SHAPE = {"num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 300}
#: Families without a scenario of their own in scenarios/tiny.
FALCON = {
    "model_type": "falcon", **SHAPE, "hidden_size": 96, "multi_query": True, "parallel_attn": True, "alibi": False,
    "new_decoder_architecture": False, "bias": False,
}  # fmt: skip
GPT_OSS = {
    "model_type": "gpt_oss", **SHAPE, "hidden_size": 64, "intermediate_size": 48, "num_key_value_heads": 2,
    "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16, "attention_bias": True,
    "tie_word_embeddings": False,
}  # fmt: skip
MORE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # its loop holds the attention weights of the layer before
    "falcon eager": (FALCON, {"attention": "eager"}),
    "falcon eager without checkpoints": (FALCON, {"attention": "eager", "checkpointing": False}),
    # its single key head is left to the math kernel's broadcasting
    "falcon": (FALCON, {}),
    # what its adapters' input gets back are views, which nothing is added into
    "falcon script reentrant": (FALCON, {"stack": "script", "checkpointing": "reentrant"}),
    "gpt-oss": (GPT_OSS, {"attention": "eager"}),
    "gpt-oss script without checkpoints": (GPT_OSS, {"attention": "eager", "stack": "script", "checkpointing": False}),
    "gpt-oss full": (GPT_OSS, {"attention": "eager", "method": "full", "quant": {"type": "none"}}),
}


@pytest.mark.parametrize("name", MORE)
def test_so_it_is_for_families_with_code_of_their_own(name: str, tmp_path: Path) -> None:
    model, keys = MORE[name]
    file = tmp_path / "scenario.yaml"
    adapters = {} if "method" in keys else {"lora": {"rank": 8}}
    file.write_text(safe_dump({"model": model, "load": "random", "batch": 2, "seq": 48, **adapters, **keys}))
    run = resolve(str(file), {}).single("the test")
    assert step_warnings(run, "cuda") == ()
    assert predicted(run) == pytest.approx(real_peaks(run), rel=0.005)


@pytest.mark.parametrize("file", ["llama-nf4", "phi3-fused", "gpt2-conv1d"])
def test_a_generation_is_within_half_a_percent_of_the_real_one(file: str) -> None:
    run = scenario(file, {"method": "inference", "new_tokens": 6})
    assert predicted(run) == pytest.approx(real_peaks(run), rel=0.005)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("model", ["llama-2-7b", "gemma-3-1b", "phi-2", "qwen3-30b-a3b", "gpt2"])
def test_the_structure_found_with_prime_sizes_gives_what_the_run_itself_gives(model: str, device: Any) -> None:
    for changes in ({"batch": 1, "seq": 4096}, {"batch": 3, "seq": 640}):
        run = resolve(model, changes).single("the test")
        assert step_parts(run, device) == StepRun(run, device).template().parts(run.batch, run.seq)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("outputs", ["freed", "held", "held-next"])
@pytest.mark.parametrize("file", ["llama-nf4", "gemma2-padded", "mixtral-experts", "llama-full"])
def test_a_few_micro_batches_tell_what_all_do(file: str, outputs: str, device: Any) -> None:
    run = scenario(file, {"grad_accum": 7, "stack": {"base": "script", "outputs": outputs}})
    few, all_ = (StepRun(run, device, most=most).template() for most in (SAMPLED, run.grad_accum))
    assert _events(few, run) == _events(all_, run)


def _events(template: Template, run: Scenario) -> list[Event]:
    return list(Timeline(template.parts(run.batch, run.seq)).events())


def test_what_is_not_known_exactly_is_said(tmp_path: Path) -> None:
    known = resolve("llama-2-7b", {}).single("the test")
    file = tmp_path / "scenario.yaml"
    file.write_text(safe_dump({"model": {**GPT_OSS, "model_type": "olmo", "intermediate_size": 64}}))
    unknown = resolve(str(file), {"method": "inference"}).single("the test")
    assert step_warnings(known, "cuda") == ()
    assert any("layer of olmo" in warning and "--engine trace" in warning for warning in step_warnings(unknown, "cuda"))
    trained = resolve(str(file), {}).single("the test")
    assert step_warnings(trained, "cuda") == ()  # read off the family's own code
