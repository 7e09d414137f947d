"""The real training step: one code for fake tensors, the CPU and CUDA."""
