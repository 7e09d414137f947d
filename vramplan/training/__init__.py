"""The real training step: one code for fake tensors, the CPU and CUDA."""

import logging

# On import bitsandbytes 0.50 recommends the optional package `kernels` for its CPU; no number here depends on it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
