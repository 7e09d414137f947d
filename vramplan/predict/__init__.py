"""The closed form: memory of a run from shapes and dtypes alone. Never imports torch."""
