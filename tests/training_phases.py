"""The phases that every training step passes, in their order."""

from vramplan.ledger import Phase

TRAINING_PHASES = (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.STEP)
