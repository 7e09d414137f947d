"""Facts that ship with the package: model configurations, GPUs, calibrated constants, each with its source."""
