"""The callback in a real transformers.Trainer on the CPU. The meter stands for the card, which is not there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import LLAMA
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from vramplan.integrations.transformers import MemoryCallback
from vramplan.integrations.trend import Reading
from vramplan.ledger import Phase
from vramplan.scenario_file import scenario_from_mapping
from vramplan.training.build import build_model
from vramplan.training.meter import NoMeter
from vramplan.training.prepare import prepare
from vramplan.units import GIB, MIB

CPU = torch.device("cpu")
BATCH, STEPS = 2, 12


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Samples of the lengths given, in this order, one length per micro-batch."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths) * BATCH

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(self.lengths[index // BATCH]) % 256
        return {"input_ids": ids, "labels": ids}


@dataclass
class Card:
    """A card on which memory between steps grows by `growth` a step; `size` is what the allocator can have."""

    size: int = GIB
    growth: int = 0
    reads: int = 0
    broken_after: int = 10**9

    def read(self) -> Reading:
        self.reads += 1
        if self.reads > self.broken_after:
            raise RuntimeError("the card has fallen off the bus")
        held = 100 * MIB + self.reads * self.growth
        return Reading(held, held + 50 * MIB, held + 60 * MIB)

    def room(self) -> int:
        return self.size


@dataclass
class Lines:
    """What was said."""

    said: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.said.append(line)

    def having(self, words: str) -> list[str]:
        return [line for line in self.said if words in line]


def trained(tmp_path: Path, callback: MemoryCallback, *, lengths: list[int] | None = None, **keys: Any) -> Trainer:
    scenario = scenario_from_mapping({"model": LLAMA, "load": "random", "method": "lora", "lora": {"rank": 4}})
    model: Any = prepare(build_model(scenario, CPU, NoMeter()), scenario, NoMeter())
    rows = lengths or [16] * STEPS
    args = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=True,
        gradient_checkpointing=True,
        per_device_train_batch_size=BATCH,
        max_steps=len(rows),
        train_sampling_strategy="sequential",
        logging_steps=4,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **keys,
    )
    trainer = Trainer(model=model, args=args, train_dataset=Rows(rows), eval_dataset=Rows([48]), callbacks=[callback])
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, MemoryCallback, Lines]:
    lines = Lines()
    callback = MemoryCallback(seq=16, gpu="t4", say=lines, meter=Card())
    return trained(tmp_path_factory.mktemp("run"), callback), callback, lines


def test_the_prediction_is_said_once_at_the_start(run: tuple[Trainer, MemoryCallback, Lines]) -> None:
    _, callback, lines = run
    assert callback.prediction is not None
    scenario = callback.prediction.scenario
    assert (scenario.batch, scenario.seq, scenario.lora.rank, scenario.gpu) == (BATCH, 16, 4, "t4")
    assert lines.said[0].startswith("vramplan: predicted peak ")
    assert "batch 2 x 16 tokens; fits: " in lines.said[0]
    assert len(lines.having("predicted peak")) == 1


def test_the_peak_is_compared_after_the_first_steps(run: tuple[Trainer, MemoryCallback, Lines]) -> None:
    _, callback, lines = run
    assert callback.prediction is not None
    (line,) = lines.having("measured peak")
    assert line.startswith("vramplan: measured peak 150.00 MiB allocated, 160.00 MiB reserved; predicted ")
    assert "(2 x 16 tokens)" in line
    # 150 MiB stand for the measured peak: the difference is in its per cent
    expected = (callback.prediction.ledger.peak - 150 * MIB) / (150 * MIB)
    assert line.endswith(f"{expected:+.1%}")


def test_a_steady_run_is_not_warned_of(run: tuple[Trainer, MemoryCallback, Lines]) -> None:
    _, callback, lines = run
    assert lines.having("out of memory") == []
    assert not callback.stopped


def test_the_history_has_the_figures(run: tuple[Trainer, MemoryCallback, Lines]) -> None:
    trainer, callback, _ = run
    assert callback.prediction is not None
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == STEPS // 4
    for entry in logged:
        assert entry["vram/allocated_gib"] == round(100 / 1024, 4)
        assert entry["vram/peak_gib"] == round(150 / 1024, 4)
        assert entry["vram/reserved_gib"] == round(160 / 1024, 4)
        assert entry["vram/predicted_peak_gib"] == round(callback.prediction.ledger.peak / GIB, 4)


def test_the_model_is_left_as_it_was(run: tuple[Trainer, MemoryCallback, Lines]) -> None:
    model: Any = run[0].model
    assert not model.get_input_embeddings()._forward_pre_hooks


def test_growth_is_warned_of(tmp_path: Path) -> None:
    lines = Lines()
    trained(tmp_path, MemoryCallback(seq=16, say=lines, meter=Card(growth=16 * MIB)))
    (line,) = lines.having("out of memory around step")
    assert line.startswith("vramplan: warning: memory between steps grows by")


def test_without_a_length_the_first_batch_tells_it(tmp_path: Path) -> None:
    lines = Lines()
    callback = MemoryCallback(say=lines, meter=Card())
    trained(tmp_path, callback, lengths=[24, 16])
    assert callback.prediction is not None
    assert callback.prediction.scenario.seq == 24


def test_a_second_run_learns_its_own_length(tmp_path: Path) -> None:
    callback = MemoryCallback(say=Lines(), meter=Card())
    for length in (24, 16):
        trained(tmp_path, callback, lengths=[length, length])
        assert callback.prediction is not None
        assert callback.prediction.scenario.seq == length


def test_shorter_batches_are_compared_with_their_own_prediction(tmp_path: Path) -> None:
    lines = Lines()
    callback = MemoryCallback(seq=64, say=lines, meter=Card())
    trained(tmp_path, callback, lengths=[16, 32, 16])
    (line,) = lines.having("measured peak")
    assert "(2 x 32 tokens)" in line
    assert callback.prediction is not None
    assert callback.prediction.scenario.seq == 64


@pytest.mark.parametrize(("every", "counted"), [(1, True), (3, False)])
def test_an_evaluation_is_compared_once_there_was_one(every: int, counted: bool, tmp_path: Path) -> None:
    """Two steps are compared: with the evaluation after the first in the prediction, its batch not taken for theirs."""
    lines = Lines()
    callback = MemoryCallback(seq=16, say=lines, meter=Card())
    keys = {"eval_strategy": "steps", "eval_steps": every, "per_device_eval_batch_size": 64}
    trained(tmp_path, callback, lengths=[16, 16, 16], **keys)
    (line,) = lines.having("measured peak")
    assert "(2 x 16 tokens)" in line
    assert callback.prediction is not None
    whole = callback.prediction
    assert whole.ledger.peak_phase is Phase.EVALUATION
    percent = f"{(whole.ledger.peak - 150 * MIB) / (150 * MIB):+.1%}"
    assert line.endswith(percent) is counted


def test_without_a_card_the_prediction_is_all(tmp_path: Path) -> None:
    """This test's process has no CUDA device, or it would be measured: the meter is the default one."""
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a CUDA device")
    lines = Lines()
    trainer = trained(tmp_path, MemoryCallback(seq=16, say=lines), lengths=[16, 16])
    assert lines.having("no CUDA device: memory is predicted, nothing is measured")
    assert all("vram/peak_gib" not in entry for entry in trainer.state.log_history)


def test_an_error_ends_the_watching_and_nothing_else(tmp_path: Path) -> None:
    lines = Lines()
    callback = MemoryCallback(seq=16, say=lines, meter=Card(broken_after=3))
    trainer = trained(tmp_path, callback)
    assert trainer.state.global_step == STEPS
    assert lines.having("stopped watching memory: RuntimeError: the card has fallen off the bus") == lines.said[-1:]
    assert callback.stopped


def test_saying_may_fail_too(tmp_path: Path) -> None:
    def broken(line: str) -> None:
        raise OSError("stdout is closed")

    callback = MemoryCallback(seq=16, say=broken, meter=Card())
    assert trained(tmp_path, callback, lengths=[16, 16]).state.global_step == 2
    assert callback.stopped


def test_what_cannot_be_predicted_is_said_and_still_measured(tmp_path: Path) -> None:
    lines = Lines()
    callback = MemoryCallback(seq=16, gpu="no-such-card", say=lines, meter=Card())
    trainer = trained(tmp_path, callback)
    assert lines.having("no prediction: unknown gpu 'no-such-card'")
    assert lines.having("measured peak 150.00 MiB allocated, 160.00 MiB reserved") == lines.said[1:]
    assert "vram/peak_gib" in trainer.state.log_history[0]


def test_other_processes_say_nothing(tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState

    lines = Lines()
    callback = MemoryCallback(seq=16, say=lines, meter=Card())
    scenario = scenario_from_mapping({"model": LLAMA, "load": "random", "method": "lora"})
    model: Any = prepare(build_model(scenario, CPU, NoMeter()), scenario, NoMeter())
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    callback.on_train_begin(args, TrainerState(is_world_process_zero=False), TrainerControl(), model=model)
    assert callback.prediction is not None
    assert lines.said == []
