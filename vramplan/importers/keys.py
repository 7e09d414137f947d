"""The keys of the formats that can be imported: which line of a scenario each one is, and which do not matter.

Read in the libraries themselves: trl 1.16.0 (trainer/sft_config.py, model_config.py, base_config.py), axolotl 0.19.0
(utils/schemas/), llamafactory 0.9.5 (hparams/), torchtune 0.6.1 (recipes/configs/), peft 0.21.2
(tuners/lora/config.py), and transformers 5.17.0 (training_args.py), whose TrainingArguments TRL and LLaMA-Factory
extend.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Format(StrEnum):
    """The kinds of file, by a short name."""

    TRL = "trl"
    AXOLOTL = "axolotl"
    LLAMAFACTORY = "llamafactory"
    TORCHTUNE = "torchtune"
    PEFT = "peft"


class Spelling(NamedTuple):
    """How one library spells a line of the scenario."""

    key: str
    default: int | float | None
    """What the library takes when the key is absent; None when it requires the key."""
    origin: str
    """File in which the default stands."""


class Line(NamedTuple):
    """A line of the scenario that every library has, under a name of its own, with a plain number as value."""

    ours: str
    whole: bool
    spelled: Mapping[Format, Spelling]


TRAINING_ARGUMENTS = "transformers 5.17.0 training_args.py"
_TRL = "trl 1.16.0 trainer/model_config.py"
_AXOLOTL = "axolotl 0.19.0 utils/schemas/"
_FACTORY = "llamafactory 0.9.5 hparams/"
_TUNE = "torchtune 0.6.1 models/*/_model_builders.py"
_PEFT = "peft 0.21.2 tuners/lora/config.py"

BATCH = Line(
    "batch",
    whole=True,
    spelled={
        Format.TRL: Spelling("per_device_train_batch_size", 8, TRAINING_ARGUMENTS),
        Format.AXOLOTL: Spelling("micro_batch_size", 1, _AXOLOTL + "training.py"),
        Format.LLAMAFACTORY: Spelling("per_device_train_batch_size", 8, TRAINING_ARGUMENTS),
        Format.TORCHTUNE: Spelling("batch_size", None, ""),
    },
)
GRAD_ACCUM = Line(
    "grad_accum",
    whole=True,
    spelled={
        Format.TRL: Spelling("gradient_accumulation_steps", 1, TRAINING_ARGUMENTS),
        Format.AXOLOTL: Spelling("gradient_accumulation_steps", 1, _AXOLOTL + "training.py"),
        Format.LLAMAFACTORY: Spelling("gradient_accumulation_steps", 1, TRAINING_ARGUMENTS),
        Format.TORCHTUNE: Spelling("gradient_accumulation_steps", 1, "torchtune 0.6.1 recipes/"),
    },
)
SEQ = Line(
    "seq",
    whole=True,
    spelled={
        Format.TRL: Spelling("max_length", 1024, "trl 1.16.0 trainer/sft_config.py"),
        Format.AXOLOTL: Spelling("sequence_len", 512, _AXOLOTL + "config.py"),
        Format.LLAMAFACTORY: Spelling("cutoff_len", 2048, _FACTORY + "data_args.py"),
    },
)
RANK = Line(
    "lora.rank",
    whole=True,
    spelled={
        Format.TRL: Spelling("lora_r", 16, _TRL),
        Format.AXOLOTL: Spelling("lora_r", None, ""),
        Format.LLAMAFACTORY: Spelling("lora_rank", 8, _FACTORY + "finetuning_args.py"),
        Format.TORCHTUNE: Spelling("model.lora_rank", 8, _TUNE),
        Format.PEFT: Spelling("r", 8, _PEFT),
    },
)
DROPOUT = Line(
    "lora.dropout",
    whole=False,
    spelled={
        Format.TRL: Spelling("lora_dropout", 0.05, _TRL),
        Format.AXOLOTL: Spelling("lora_dropout", 0.0, _AXOLOTL + "peft.py"),
        Format.LLAMAFACTORY: Spelling("lora_dropout", 0.0, _FACTORY + "finetuning_args.py"),
        Format.TORCHTUNE: Spelling("model.lora_dropout", 0.0, _TUNE),
        Format.PEFT: Spelling("lora_dropout", 0.0, _PEFT),
    },
)
