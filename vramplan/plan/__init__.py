"""What fits: the frontier of micro-batch and sequence, goals, and which models train on which cards."""
