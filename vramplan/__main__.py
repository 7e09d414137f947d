"""`python -m vramplan`."""

from vramplan.cli import run

run()
