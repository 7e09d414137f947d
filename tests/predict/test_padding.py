"""Padded batches in the closed form: against real steps on the CPU, and in structures found with prime sizes."""

from pathlib import Path
from typing import Any

import pytest

from tests.predict.real_steps import real_peaks
from tests.predict.test_step import predicted
from vramplan.predict.step import StepRun, step_parts
from vramplan.scenario import Scenario
from vramplan.targets import resolve
from vramplan.timeline import Alloc, Timeline

TINY = Path(__file__).parents[2] / "scenarios" / "tiny"

#: Each names a file of scenarios/tiny, and what is changed in it besides its padding.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama-nf4", {}),
    "llama without checkpoints": ("llama-nf4", {"checkpointing": False}),
    "llama eager": ("llama-nf4", {"attention": "eager"}),
    "llama math script": ("llama-nf4", {"attention": "sdpa:math", "stack": "script", "checkpointing": False}),
    "gemma 2 eager": ("gemma2-softcap", {}),
    "gemma 2 without checkpoints": ("gemma2-softcap", {"attention": "sdpa", "checkpointing": False}),
    "gpt-2 reentrant": ("gpt2-conv1d", {"checkpointing": "reentrant"}),
    "gpt-2 eager without checkpoints": ("gpt2-conv1d", {"attention": "eager", "checkpointing": False}),
    "qwen 2 of one sample": ("qwen2-biases", {"batch": 1}),
    "opt": ("opt-float16", {}),  # its positions are counted in the mask
}


def padded(target: str, **changes: Any) -> Scenario:
    return resolve(target, {"padding": True, **changes}).single("the test")


@pytest.mark.parametrize("name", RUNS)
def test_every_phase_is_within_half_a_percent_of_the_real_step(name: str) -> None:
    file, changes = RUNS[name]
    run = padded(str(TINY / f"{file}.yaml"), **changes)
    assert predicted(run) == pytest.approx(real_peaks(run), rel=0.005)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_attention_2"])
@pytest.mark.parametrize("model", ["llama-2-7b", "gemma-3-1b", "gpt2"])
def test_the_structure_found_with_prime_sizes_gives_what_the_run_itself_gives(
    model: str, attention: str, device: Any
) -> None:
    # 643: the mask's rows are copied into longer ones, for which they need no multiple of 8
    for batch, seq in ((1, 2048), (3, 640), (3, 643)):
        run = padded(model, batch=batch, seq=seq, attention=attention)
        assert step_parts(run, device) == StepRun(run, device).template().parts(run.batch, run.seq)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_layers_with_and_without_a_window_have_masks_of_their_own(attention: str) -> None:
    # booleans [3, 1, 100, 100] for both kinds of layers, though the window of 512 is never left; without padding, none
    for padding, count in ((True, 2), (False, 0)):
        run = padded("gemma-3-1b", batch=3, seq=100, attention=attention, padding=padding)
        events = Timeline(step_parts(run, "cpu")).events()
        masks = [e for e in events if isinstance(e, Alloc) and e.bytes == 30_000 and "allowed positions" in e.label]
        assert len(masks) == count
