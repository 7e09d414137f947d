"""Why a run ran out of memory: from PyTorch's message in a log, or from a snapshot of its allocator. No torch."""
