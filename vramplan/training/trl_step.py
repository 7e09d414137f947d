"""The optimizer step of TRL's own SFTTrainer or DPOTrainer; how they are driven is the Trainer's (`trainer_step`)."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from datasets import Dataset
from peft import PeftConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerFast
from trl.trainer import dpo_trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
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

    trainer = "SFTTrainer"

    def __init__(self, model: nn.Module, scenario: Scenario, device: torch.device, meter: Meter) -> None:
        super().__init__(model, scenario, device, meter)
        self.loop = f"trl.{self.trainer} {version('trl')}"

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


class DpoStep(TrlStep):
    """A loop whose steps are made by `trl.DPOTrainer`."""

    trainer = "DPOTrainer"

    def _made(self, settings: dict[str, Any]) -> SteppingTrainer:
        evaluation, batch = self._scenario.evaluation, self._scenario.batch
        rows = self._evaluation_rows(evaluation)
        # A model that comes with adapters gets a copy of them as the reference; one that TRL attaches them to does not.
        with mock.patch.object(dpo_trainer, "get_peft_model", return_value=self.model):
            return SteppingDPOTrainer(
                self,
                model=self._causal,
                peft_config=PeftConfig(),
                args=checked_arguments(DPOConfig, {**settings, "max_length": None}),
                train_dataset=_pairs(self._rows(), batch),
                eval_dataset=_pairs(rows, evaluation.batch) if rows and evaluation else None,
                processing_class=_tokenizer(),
            )


class SteppingDPOTrainer(SteppingTrainer, DPOTrainer):  # type: ignore[misc]
    """The same for TRL's trainer of preferences."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """The samples are tokens already."""
        return dataset


def _pairs(rows: Rows, batch: int) -> Dataset:
    """The rows, of which each micro-batch has its chosen sequences first, as pairs of answers without a prompt."""
    starts = range(0, len(rows), 2 * batch)
    return Dataset.from_list([_pair(rows[i], rows[i + batch]) for start in starts for i in range(start, start + batch)])


def _pair(chosen: Row, rejected: Row) -> Row:
    answers = {"chosen_ids": chosen, "rejected_ids": rejected}
    return {"prompt_ids": []} | {name: row["input_ids"][: sum(row["attention_mask"])] for name, row in answers.items()}


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
