"""Families outside the table: what `architecture.observed` tells of a model's own code, written onto a tape.

Formulas that no layer of the table needs stand here, the others in `operations/`. What is not known exactly is noted
in the tape's `doubts`.
"""
