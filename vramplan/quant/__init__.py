"""Quantisation formats by themselves: their levels, what they cost, and what they do to weights."""
