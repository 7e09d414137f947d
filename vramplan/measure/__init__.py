"""Meters that watch the training code, and the child process that runs it."""
