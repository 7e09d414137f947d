"""Which of a model's own dropouts are active."""

from vramplan.predict.tape import Tape
from vramplan.scenario import Scenario

#: Families whose dropout is a module, by the fact that tells of it; in others it is a function that reads the
#: configuration (transformers 5.17 models/*/modeling_*.py). GPT-2 hands its module's number to a function.
_MODULES = {
    "attention_dropout": ("gpt2", "falcon"),
    "residual_dropout": ("gpt2", "gpt_neox", "phi", "phi3"),
    "embedding_dropout": ("gpt2", "gpt_neox", "phi"),
}


def drops(t: Tape, scenario: Scenario, fact: str) -> bool:
    """Whether what the fact tells of is there: a dropout while training, unless it is a module, which TRL's DPOTrainer
    switches off (trl 1.16 trainer/utils.py `disable_dropout_in_model`); any other fact always."""
    if not fact.endswith("_dropout"):
        return True
    switched_off = scenario.stack.prefers and scenario.architecture.family in _MODULES[fact]
    return t.training and not switched_off
