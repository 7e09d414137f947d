"""GPUs by name (placeholder until the data file lands; `check_gpu` is used by scenario_file)."""


def check_gpu(name: str) -> str:
    """`name`, when the catalogue has it; otherwise a UsageError with the nearest."""
    return name
