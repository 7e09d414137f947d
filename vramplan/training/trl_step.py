"""The optimizer step of TRL's own SFTTrainer, one at a time; how it is driven is the Trainer's (`trainer_step`)."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerFast
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from vramplan.scenario import Scenario
from vramplan.training.batch import Row, Rows
from vramplan.training.meter import Meter
from vramplan.training.trainer_step import SteppingTrainer, TrainerStep, checked_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TrlStep(TrainerStep):
    """A loop whose steps are made by `trl.SFTTrainer`."""

    def __init__(self, model: nn.Module, scenario: Scenario, device: torch.device, meter: Meter) -> None:
        super().__init__(model, scenario, device, meter)
        self.loop = f"trl.SFTTrainer {version('trl')}"

    def _made(self, settings: dict[str, Any]) -> SteppingTrainer:
        evaluated = self._evaluation_rows(self._scenario.evaluation)
        ready = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
        return SteppingSFTTrainer(
            self,
            model=self.model,
            args=checked_arguments(SFTConfig, {**settings, **ready}),
            train_dataset=_samples(self._rows()),
            eval_dataset=None if evaluated is None else _samples(evaluated),
            processing_class=_tokenizer(),
        )


class SteppingSFTTrainer(SteppingTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, stopped before its first epoch and driven from there as the Trainer is."""


def _samples(rows: Rows) -> Dataset:
    """The rows as TRL's collator takes them: it pads the shorter ones itself, and makes the mask of what it padded."""
    return Dataset.from_list([_sample(rows[index]) for index in range(len(rows))])


def _sample(row: Row) -> Row:
    length = sum(row["attention_mask"])
    return {name: row[name][:length] for name in ("input_ids", "labels")}


def _tokenizer() -> "PreTrainedTokenizerBase":
    """A tokenizer of two words: the samples are tokens already, and the trainer asks for the padding token alone."""
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
