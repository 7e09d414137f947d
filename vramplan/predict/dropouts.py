"""Which of a model's own dropouts are active."""

from dataclasses import replace

from vramplan.architecture import Dropouts
from vramplan.predict.tape import Tape
from vramplan.scenario import Scenario

#: Which of a family's dropouts are modules; the others are functions that read the configuration (transformers 5.17
#: models/*/modeling_*.py). GPT-2 hands its module's number to a function.
_MODULES = {
    "gpt2": ("attention", "residual", "embedding"),
    "falcon": ("attention",),
    "gpt_neox": ("residual", "embedding"),
    "phi": ("residual", "embedding"),
    "phi3": ("residual",),
}


def active(t: Tape, scenario: Scenario) -> Dropouts:
    """The model's own dropouts: those of training, without the modules that TRL's DPOTrainer switches off
    (trl 1.16 trainer/utils.py `disable_dropout_in_model`)."""
    architecture = scenario.architecture
    if not t.training:
        return Dropouts()
    switched_off = _MODULES.get(architecture.family, ()) if scenario.stack.prefers else ()
    return replace(architecture.facts.dropouts, **dict.fromkeys(switched_off, 0.0))
