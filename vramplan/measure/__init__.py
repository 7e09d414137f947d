"""Meters that watch the training code, and the child process that runs it."""

import vramplan.training  # noqa: F401  (its settings of the libraries' loggers, before any meter imports one)
