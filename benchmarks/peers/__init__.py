"""The field's memory estimators on the same published measurements: `make peers`."""
