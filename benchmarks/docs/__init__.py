"""The pages in docs/: their outputs, numbers and plots come from commands. `make docs` renews what differs."""
