"""From a model object and the Trainer's arguments, as somebody's code has them, to a scenario."""
